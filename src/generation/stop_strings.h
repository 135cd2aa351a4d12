#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace comba::generation {

/// Ends a text that arrives piece by piece before the first stop string in it. Nothing of a stop string is ever handed
/// out, however the pieces cut it, and nothing else is held back longer than it could become one.
class StopStrings {
 public:
  /// Throws Error(invalid_argument) for an empty string.
  explicit StopStrings(std::vector<std::string> strings);

  /// What can be shown once `piece` has arrived. The stop string that is whole first counts, and of several the
  /// longest. After it, nothing.
  std::string feed(std::string_view piece);
  /// What was held back, for a text that ends here.
  std::string finish();

  /// Whether a stop string has arrived.
  bool found() const { return found_; }

 private:
  std::size_t bytes_to_hold_back() const;

  std::vector<std::string> strings_;
  std::string pending_;
  bool found_ = false;
};

}  // namespace comba::generation
