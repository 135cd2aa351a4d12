#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <vector>

#include "base/stop_flag.h"
#include "data/dataset_index.h"
#include "data/document_reader.h"
#include "data/piece_encoder.h"
#include "data/source_files.h"

namespace comba::data {

struct PackProgress {
  std::int64_t num_files = 0, total_files = 0;
  std::int64_t num_bytes = 0, total_bytes = 0;  ///< of the files as they are, compressed or not
};

struct PackOptions {
  std::vector<std::filesystem::path> inputs;  ///< files and directories
  std::filesystem::path output;               ///< the data set's directory; its parents are created
  FileSelection selection{};
  RecordFields records{};  ///< with a prompt, the data set has a loss mask
  Tokenizer tokenizer{};
  std::string python = "python3";  ///< reads parquet files, with the package pyarrow
  Holdout holdout = Holdout::files;
  bool include_binary = false;                        ///< also pack files with a NUL byte in their first 8000 bytes
  bool keep_duplicates = false;                       ///< also pack documents with the content of an earlier one
  bool overwrite = false;                             ///< `output` may be an earlier data set, which is then replaced
  std::int64_t shard_tokens = std::int64_t{1} << 28;  ///< tokens a file
  std::function<void(const PackProgress&)> on_progress = nullptr;
  const StopFlag* stop = nullptr;
};

/// What became of the files.
struct PackReport {
  DatasetIndex index;
  std::int64_t num_duplicates = 0;  ///< same content as an earlier document
  std::int64_t num_empty = 0;
  std::int64_t num_binary = 0;
  std::int64_t num_symbolic_links = 0;
  std::int64_t num_special_files = 0;
};

/// Packs texts into a data set: files in the order of their relative paths, records in that of their lines, identical
/// documents once, each as BOS and its ids. Encodes on the threads of comba::parallel_for; equal inputs give equal
/// bytes on any number of them. Memory grows with the number of files and, unless duplicates are kept, by about 50
/// bytes a document, not with the text. `output` appears whole or, on any failure, not at all. Throws Error: io (naming
/// the file), invalid_argument, unsupported, interrupted.
PackReport pack(const PackOptions& options);

}  // namespace comba::data
