#pragma once

#include <stdexcept>
#include <string>

#include "comba/export.h"

namespace comba {

/// What kind of failure an Error reports.
enum class ErrorCode {
  invalid_argument,  ///< the caller broke a documented rule
  unsupported,       ///< legal, but nothing here implements it
  io,                ///< a file or directory could not be read or written
  interrupted,       ///< a signal asked for the end
  numerical,         ///< a computation gave infinity or NaN where only finite numbers make sense
  internal,          ///< a rule of our own was broken: please report it
};

/// The one exception type this library throws.
/// The message reads `[where] rule; got actual value (tensor: shape dtype)`.
class COMBA_API Error : public std::runtime_error {
 public:
  Error(ErrorCode code, const std::string& message) : std::runtime_error(message), code_(code) {}

  ErrorCode code() const noexcept { return code_; }

 private:
  ErrorCode code_;
};

}  // namespace comba
