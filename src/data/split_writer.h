#pragma once

#include <span>

#include "base/file.h"
#include "data/dataset_index.h"

namespace comba::data {

/// Writes the three files of one split.
class SplitWriter {
 public:
  /// Creates the files in `directory`; errors name those of `final_directory`.
  SplitWriter(Split split, const std::filesystem::path& directory, const std::filesystem::path& final_directory);

  /// Appends to the open document, which the first piece opens.
  void append(std::span<const unsigned char> text);
  /// Ends the open document. Without text there was none.
  void end_document(const std::string& path);
  /// Forgets the open document.
  void drop_document();
  /// Forces the files to the disk.
  void finish();

  const SplitCounts& counts() const { return counts_; }

 private:
  FileWriter tokens_;
  FileWriter documents_;
  FileWriter paths_;
  SplitCounts counts_;           // of ended documents
  std::int64_t open_bytes_ = 0;  // text of the open document
};

}  // namespace comba::data
