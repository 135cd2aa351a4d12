#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace comba::data {

/// Which files of a directory to take. A pattern without '/' is matched with the file's name, one with '/' with its
/// path relative to the directory; `*` also matches '/'. Patterns do not apply to files that are named themselves.
struct FileSelection {
  std::vector<std::string> include;  ///< empty: every file
  std::vector<std::string> exclude;  ///< wins over include
};

struct SourceFile {
  std::string relative_path;   ///< '/'-separated; the name alone for a file that was named itself
  std::filesystem::path path;  ///< where to read it
  std::int64_t num_bytes = 0;
};

struct SourceFiles {
  std::vector<SourceFile> files;        ///< sorted by relative path, then in the order of the inputs
  std::int64_t num_symbolic_links = 0;  ///< met in directories, not followed
  std::int64_t num_special_files = 0;   ///< sockets, devices and such in directories, left alone
};

/// Lists the regular files of `inputs` (files, or directories with everything below them). Entries of directories whose
/// name starts with '.' are passed over, and so is `left_out` (the directory being written). Symbolic links are
/// followed only when they are an input themselves, so that there are no loops. Throws Error (io) for an input that is
/// missing or neither file nor directory, and for a directory that cannot be read.
SourceFiles list_source_files(const std::vector<std::filesystem::path>& inputs, const FileSelection& selection,
                              const std::filesystem::path& left_out);

}  // namespace comba::data
