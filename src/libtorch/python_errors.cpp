#include <c10/util/Exception.h>

#include "libtorch/error_translation.h"

// Only in libcomba_torch.so: the exceptions that LibTorch turns into those of Python.
namespace comba {
namespace {

/// A broken rule becomes Python's ValueError; what is left to go on becomes its RuntimeError.
void raise_value_error(const Error& error) {
  if (error.code() == ErrorCode::invalid_argument) C10_THROW_ERROR(ValueError, error.what());
}

[[maybe_unused]] const bool kIsSet = [] {
  translate_error = raise_value_error;
  return true;
}();

}  // namespace
}  // namespace comba
