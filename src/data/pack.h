#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <vector>

#include "base/stop_flag.h"
#include "data/dataset_index.h"
#include "data/source_files.h"

namespace comba::data {

/// How text is kept aside to judge models on.
enum class Holdout {
  files,  ///< whole files: those with md5(relative path) mod 20 == 0
  tail,   ///< the last twentieth of every file, for texts of few files
};

struct PackProgress {
  std::int64_t num_files = 0, total_files = 0;
  std::int64_t num_bytes = 0, total_bytes = 0;
};

struct PackOptions {
  std::vector<std::filesystem::path> inputs;  ///< files and directories
  std::filesystem::path output;               ///< the data set's directory; its parents are created
  FileSelection selection{};
  Holdout holdout = Holdout::files;
  bool include_binary = false;  ///< also pack files with a NUL byte in their first 8000 bytes
  bool overwrite = false;       ///< `output` may be an earlier data set, which is then replaced
  std::function<void(const PackProgress&)> on_progress = nullptr;
  const StopFlag* stop = nullptr;
};

/// What became of the files.
struct PackReport {
  DatasetIndex index;
  std::int64_t num_duplicates = 0;  ///< same content as an earlier file
  std::int64_t num_empty = 0;
  std::int64_t num_binary = 0;
  std::int64_t num_symbolic_links = 0;
  std::int64_t num_special_files = 0;
};

/// Packs texts into a data set: files in the order of their relative paths, identical ones once, each as BOS and bytes.
/// Equal inputs give equal bytes. Memory grows with the number of files, not with their size. `output` appears whole
/// or, on any failure, not at all. Throws Error: io (naming the file), invalid_argument, interrupted.
PackReport pack(const PackOptions& options);

/// md5(path) mod 20 == 0, the digest read as a big-endian number.
bool is_held_out(const std::string& relative_path);

}  // namespace comba::data
