#pragma once

#include <sstream>
#include <string>

#include "comba/error.h"
#include "comba/view.h"

/// Texts of errors: `[operator] rule; got value (tensor: [sizes] dtype)`.
namespace comba {

/// Everything streamed into one string.
template <class... Parts>
std::string concat(const Parts&... parts) {
  std::ostringstream stream;
  (stream << ... << parts);
  return stream.str();
}

/// Streams as "[2, 512, 8, 320] bf16", or "absent". Rules that hold are checked on every call: only a broken one pays
/// for its text.
struct Description {
  const ConstView& view;
};
inline Description describe(const ConstView& view) { return {view}; }
std::ostream& operator<<(std::ostream& stream, const Description& description);

/// Throws Error with the parts as its text unless `holds`.
template <class... Parts>
void require(bool holds, ErrorCode code, const Parts&... parts) {
  if (!holds) throw Error(code, concat(parts...));
}

}  // namespace comba
