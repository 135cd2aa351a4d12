#pragma once

#include <filesystem>

#include "base/message.h"

namespace comba {

/// judge(), which looks at what a file says. Errors name the file, and a rule that its content breaks is a failure to
/// read it (io) in place of a wrong argument: nobody has called anything wrongly.
template <class Judge>
auto as_content_of(const std::filesystem::path& file, Judge&& judge) {
  try {
    return judge();
  } catch (const Error& error) {
    if (error.code() == ErrorCode::io) throw;
    const ErrorCode code = error.code() == ErrorCode::invalid_argument ? ErrorCode::io : error.code();
    throw Error(code, concat(error.what(), " (", file.string(), ")"));
  }
}

}  // namespace comba
