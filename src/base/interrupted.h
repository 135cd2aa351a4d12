#pragma once

#include <string>

#include "comba/error.h"

namespace comba {

/// A long loop ended early because some process was asked to, not always this one: see StopFlag.
class Interrupted : public Error {
 public:
  Interrupted(int signal_number, const std::string& message)
      : Error(ErrorCode::interrupted, message), signal_number_(signal_number) {}

  /// The signal that asked.
  int signal_number() const noexcept { return signal_number_; }

 private:
  int signal_number_;
};

}  // namespace comba
