#pragma once

#include <memory>
#include <span>
#include <vector>

#include "base/file.h"
#include "data/dataset_index.h"

namespace comba::data {

/// A stream of bytes in files of `shard_bytes` each, the last one shorter. Its end can be cut off again up to the last
/// keep(), for which the files written since then stay open.
class ShardWriter {
 public:
  /// Writes `<split>-<number>.<part>` in `directory`; errors name those of `final_directory`.
  ShardWriter(Split split, const char* part, const std::filesystem::path& directory,
              const std::filesystem::path& final_directory, std::int64_t shard_bytes);

  void write(const void* data, std::int64_t size);
  /// What has been written stays.
  void keep();
  /// Forgets what was written since the last keep().
  void drop();
  /// Forces everything to the disk. The first file is there even when it is empty.
  void finish();

 private:
  void open_next();

  Split split_;
  const char* part_;
  std::filesystem::path directory_, final_directory_;
  std::int64_t shard_bytes_;
  std::int64_t next_shard_ = 0;
  std::int64_t kept_ = 0;  // bytes of the first open file that stay
  std::vector<std::unique_ptr<FileWriter>> open_;
};

/// Writes the files of one split.
class SplitWriter {
 public:
  /// Creates the files in `directory`; errors name those of `final_directory`.
  SplitWriter(Split split, const std::filesystem::path& directory, const std::filesystem::path& final_directory,
              const DatasetIndex& index);

  /// Appends a part of `num_bytes` bytes of text to the open document, which the first part opens. The first
  /// `num_context` ids are there to be read, not learned.
  void append(std::span<const std::uint32_t> ids, std::size_t num_context, std::int64_t num_bytes);
  /// Ends the open document. Without tokens there was none.
  void end_document(const std::string& path);
  /// Forgets the open document.
  void drop_document();
  /// Forces the files to the disk.
  void finish();

  const SplitCounts& counts() const { return counts_; }

 private:
  void write_ids(std::span<const std::uint32_t> ids);
  void write_loss(std::size_t count, char learned);

  std::uint32_t bos_;
  std::int64_t token_bytes_;
  ShardWriter tokens_;
  std::unique_ptr<ShardWriter> loss_;  // none: every token is learned
  FileWriter documents_;
  FileWriter paths_;
  SplitCounts counts_;            // of ended documents
  std::int64_t open_bytes_ = 0;   // text of the open document
  std::int64_t open_tokens_ = 0;  // its tokens, BOS included
  std::vector<std::uint16_t> narrow_;
};

}  // namespace comba::data
