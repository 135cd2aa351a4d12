#include "base/atomic_directory.h"

#include <fcntl.h>
#include <stdio.h>

#include <cerrno>
#include <system_error>

#include "base/file.h"
#include "base/message.h"

namespace comba {
namespace {

namespace fs = std::filesystem;

void require_success(const std::error_code& error, const char* what, const fs::path& path) {
  require(!error, ErrorCode::io, "[AtomicDirectory] cannot ", what, " '", path.string(), "': ", error.message());
}

fs::path without_trailing_slash(const fs::path& path) {
  const fs::path normal = path.lexically_normal();
  return normal.has_filename() ? normal : normal.parent_path();
}

/// Swaps two directories in one step, where the file system can do that.
bool exchange(const fs::path& a, const fs::path& b) {
  return ::renameat2(AT_FDCWD, a.c_str(), AT_FDCWD, b.c_str(), RENAME_EXCHANGE) == 0;
}

}  // namespace

AtomicDirectory::AtomicDirectory(const fs::path& path)
    : path_(without_trailing_slash(path)), staging_(temporary_path_beside(path_)) {
  std::error_code error;
  if (path_.has_parent_path()) fs::create_directories(path_.parent_path(), error);
  if (!error) fs::create_directory(staging_, error);
  require_success(error, "create", path_);
}

AtomicDirectory::~AtomicDirectory() {
  std::error_code ignored;  // after commit() this is the replaced directory, or nothing
  fs::remove_all(staging_, ignored);
}

void AtomicDirectory::commit() {
  sync_directory(staging_);
  std::error_code error;
  fs::rename(staging_, path_, error);
  if (error == std::errc::directory_not_empty || error == std::errc::file_exists) {
    error.clear();
    if (!exchange(staging_, path_)) {
      const fs::path replaced = temporary_path_beside(path_);
      fs::rename(path_, replaced, error);
      if (!error) fs::rename(staging_, path_, error);
      if (!error) staging_ = replaced;
    }
  }
  require_success(error, "replace", path_);
  sync_directory(path_.parent_path());
}

}  // namespace comba
