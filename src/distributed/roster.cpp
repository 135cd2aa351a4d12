#include "distributed/roster.h"

#include <c10/util/Flags.h>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include <thread>
#include <vector>

#include "base/message.h"
#include "distributed/process_group.h"

C10_DECLARE_int(caffe2_log_level);

namespace comba::distributed {
namespace {

using std::chrono::steady_clock;

constexpr std::chrono::milliseconds kPoll{10};
// A process that sees another's end is at most one collective call behind it.
constexpr std::chrono::seconds kSigningTime{3};

constexpr const char* kArrived = "arrived";
constexpr const char* kPrepared = "prepared";
constexpr const char* kFailed = "failed";
constexpr const char* kTold = "told";
constexpr const char* kSigned = "signed/";
constexpr const char* kLeft = "left";

bool serves_store(const Launch& launch) { return launch.rank == 0 && !launch.launcher_has_store; }

/// `patience` for the first contact: rank 0, or its machine, may come later than this process.
c10::intrusive_ptr<c10d::Store> connect(const Launch& launch, std::chrono::milliseconds patience) {
  FLAGS_caffe2_log_level = 3;  // c10d logs what it also throws, with a stack
  c10d::TCPStoreOptions options;
  options.port = launch.port;
  options.isServer = serves_store(launch);
  options.waitWorkers = false;
  options.timeout = patience;
  try {
    auto store = c10::make_intrusive<c10d::TCPStore>(launch.address, options);
    return c10::make_intrusive<c10d::PrefixStore>(concat("comba/", launch.attempt), std::move(store));
  } catch (const std::exception&) {
    throw Error(ErrorCode::io, concat("[distributed] the processes must be able to meet at MASTER_ADDR:MASTER_PORT; ",
                                      "process ", launch.rank, " cannot ", options.isServer ? "listen at " : "reach ",
                                      launch.address, ':', launch.port));
  }
}

/// `ranks`: "1, 3" in the text.
std::string loss_of(const std::vector<int>& ranks, int size) {
  std::string processes;
  for (const int rank : ranks) processes += concat(processes.empty() ? "" : ", ", rank);
  return concat("[distributed] lost process ", processes, " of ", size,
                " (ranks count from 0): it ended without a word, or does not answer; was it killed, or out of memory?");
}

/// Polls until `holds`, for as long as others need to sign.
template <class Condition>
void wait_until(Condition&& holds) {
  const auto deadline = steady_clock::now() + kSigningTime;
  while (!holds() && steady_clock::now() < deadline) std::this_thread::sleep_for(kPoll);
}

}  // namespace

Roster::Roster(const Launch& launch, const StopFlag& stop, std::chrono::milliseconds patience)
    : launch_(launch), store_(connect(launch, patience)) {
  const auto deadline = steady_clock::now() + patience;
  for (std::int64_t arrived = arrive(1); arrived < size(); arrived = arrive(0)) {
    require(!stop.requested(), ErrorCode::interrupted, "[distributed] stopped while ", arrived, " of ", size(),
            " processes had come");
    require(steady_clock::now() < deadline, ErrorCode::io, "[distributed] all ", size(), " processes must come to ",
            launch.address, ':', launch.port, "; got ", arrived, " of them in ",
            std::chrono::duration_cast<std::chrono::seconds>(patience).count(), " s");
    std::this_thread::sleep_for(kPoll);
  }
}

/// Adds to the number of those that have come, and returns it.
std::int64_t Roster::arrive(std::int64_t how_many) {
  try {
    return store_->add(kArrived, how_many);
  } catch (const std::exception&) {
    throw Error(ErrorCode::io, concat("[distributed] the processes must be able to meet at ", launch_.address, ':',
                                      launch_.port, "; who serves it has gone"));
  }
}

Roster::~Roster() = default;

void Roster::wait_for_all() {
  const auto deadline = steady_clock::now() + kMeetingTime;
  try {
    for (std::int64_t how_many = 1; store_->add(kPrepared, how_many) < size(); how_many = 0) {
      if (store_->add(kTold, 0) > 0 || steady_clock::now() > deadline) break;
      std::this_thread::sleep_for(kPoll);
    }
    if (store_->add(kPrepared, 0) == size()) return;
  } catch (const std::exception&) {  // the store is gone, and with it the process that served it
  }
  throw LostProcess("[distributed] a process failed before the work began");
}

bool Roster::tells_failure() {
  try {
    store_->add(kFailed, 1);
    const bool first = store_->add(kTold, 1) == 1;
    store_->set(concat(kSigned, rank()), std::string("failed"));
    if (serves_store(launch_)) wait_until([&] { return missing_processes().empty(); });
    leave();
    return first;
  } catch (const std::exception&) {
    return true;  // nobody can be asked: twice is better than never
  }
}

std::optional<std::string> Roster::tells_loss(const std::string& symptom) {
  try {
    store_->set(concat(kSigned, rank()), std::string("lost"));
    wait_until([&] { return store_->add(kTold, 0) > 0 || missing_processes().empty(); });
    const bool first = store_->add(kTold, 1) == 1;
    // Where another has failed the rest are alive, but may still be on their way.
    const bool are_alive = !first && store_->add(kFailed, 0) > 0;
    if (serves_store(launch_) && are_alive) wait_until([&] { return missing_processes().empty(); });
    const std::vector<int> missing = missing_processes();
    leave();
    if (!first) return std::nullopt;
    return missing.empty() ? symptom : loss_of(missing, size());
  } catch (const std::exception&) {  // the store is gone, and with it the process that served it
    return launch_.launcher_has_store ? symptom : loss_of({0}, size());
  }
}

/// Who serves the store stays until the others have read what they need.
void Roster::leave() {
  store_->add(kLeft, 1);
  if (!serves_store(launch_)) return;
  const auto num_missing = static_cast<std::int64_t>(missing_processes().size());
  wait_until([&] { return store_->add(kLeft, 0) >= size() - num_missing; });
}

/// Those that have not signed.
std::vector<int> Roster::missing_processes() const {
  std::vector<int> missing;
  for (int rank = 0; rank < size(); ++rank) {
    if (!store_->check({concat(kSigned, rank)})) missing.push_back(rank);
  }
  return missing;
}

}  // namespace comba::distributed
