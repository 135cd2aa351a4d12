#pragma once

#include <c10/util/intrusive_ptr.h>

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/stop_flag.h"
#include "distributed/launch.h"

namespace c10d {
class Store;
}

namespace comba::distributed {

/// Where the processes of a launch meet, and where they leave word when they fail, so that one of them tells the user
/// and only one.
class Roster {
 public:
  static constexpr std::chrono::minutes kMeetingTime{5};

  /// Waits until all processes have come. Throws Error: io when some have not in `patience`, interrupted when `stop` is
  /// requested.
  Roster(const Launch& launch, const StopFlag& stop, std::chrono::milliseconds patience = kMeetingTime);
  ~Roster();

  int rank() const { return launch_.rank; }
  int size() const { return launch_.size; }
  const Launch& launch() const { return launch_; }
  /// Keys and values that all processes see.
  const c10::intrusive_ptr<c10d::Store>& store() const { return store_; }

  /// Waits until all processes have called it: between what each prepares for itself and what they do together. Throws
  /// LostProcess when one has failed, or does not come in the time of the meeting.
  void wait_for_all();

  /// To be called when this process ends with an error of its own. Whether it is the one to tell it.
  bool tells_failure();

  /// To be called when this process ends because it lost another. What to tell, or none when another process tells.
  /// Waits for a short while, so that those that are left can sign.
  std::optional<std::string> tells_loss(const std::string& symptom);

 private:
  std::int64_t arrive(std::int64_t how_many);
  std::vector<int> missing_processes() const;
  void leave();

  Launch launch_;
  c10::intrusive_ptr<c10d::Store> store_;
};

}  // namespace comba::distributed
