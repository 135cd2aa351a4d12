#pragma once

#include <filesystem>

namespace comba {

/// A directory that appears under its name whole or not at all. It is filled in a hidden place beside `path`, and
/// commit() moves it there, in exchange for an earlier directory of that name. Without commit() it leaves no trace.
/// Errors are of code `io` and name the path.
class AtomicDirectory {
 public:
  /// Creates the hidden place, and the parents of `path` where they are missing.
  explicit AtomicDirectory(const std::filesystem::path& path);
  ~AtomicDirectory();
  AtomicDirectory(const AtomicDirectory&) = delete;
  AtomicDirectory& operator=(const AtomicDirectory&) = delete;

  /// Where to write meanwhile.
  const std::filesystem::path& staging() const { return staging_; }

  /// Everything in staging() must have been forced to the disk, as FileWriter and AtomicFile do.
  void commit();

 private:
  std::filesystem::path path_;
  std::filesystem::path staging_;
};

}  // namespace comba
