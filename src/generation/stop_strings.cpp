#include "generation/stop_strings.h"

#include <algorithm>
#include <utility>

#include "base/message.h"

namespace comba::generation {

StopStrings::StopStrings(std::vector<std::string> strings) : strings_(std::move(strings)) {
  require(std::ranges::none_of(strings_, &std::string::empty), ErrorCode::invalid_argument,
          "[StopStrings] a stop string must have at least one character; got an empty one");
}

/// Length of the longest end of `pending_` that begins a stop string.
std::size_t StopStrings::bytes_to_hold_back() const {
  std::size_t longest = 0;
  for (const std::string& string : strings_) {
    std::size_t count = std::min(string.size() - 1, pending_.size());
    while (count > longest && !pending_.ends_with(std::string_view(string).substr(0, count))) --count;
    longest = std::max(longest, count);
  }
  return longest;
}

std::string StopStrings::feed(std::string_view piece) {
  if (found_) return {};
  pending_ += piece;
  std::size_t first_end = std::string::npos, first_begin = 0;
  for (const std::string& string : strings_) {
    const std::size_t begin = pending_.find(string);
    if (begin == std::string::npos) continue;
    const std::size_t end = begin + string.size();
    if (end < first_end || (end == first_end && begin < first_begin)) first_end = end, first_begin = begin;
  }
  found_ = first_end != std::string::npos;
  const std::size_t shown = found_ ? first_begin : pending_.size() - bytes_to_hold_back();
  std::string text = pending_.substr(0, shown);
  pending_.erase(0, found_ ? pending_.size() : shown);
  return text;
}

std::string StopStrings::finish() { return std::exchange(pending_, {}); }

}  // namespace comba::generation
