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

/// "[2, 512, 8, 320] bf16", or "absent".
std::string describe(const ConstView& view);

/// Throws Error with the parts as its text unless `holds`.
template <class... Parts>
void require(bool holds, ErrorCode code, const Parts&... parts) {
  if (!holds) throw Error(code, concat(parts...));
}

}  // namespace comba
