#pragma once

#include "comba/error.h"

namespace comba {

/// What a kernel called by LibTorch's dispatcher does with an Error before it lets it go on, unless null. The library
/// for Python sets it when it is loaded; programs in C++ get the Error as it is.
inline void (*translate_error)(const Error& error) = nullptr;

}  // namespace comba
