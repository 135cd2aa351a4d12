#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "base/file.h"
#include "data/tokenizer.h"

namespace comba::data {

/// Which part of a data set: what a model learns from, or what it is judged on.
enum class Split { train, heldout };

/// "train" or "heldout".
const char* name_of(Split split);

/// One packed document. Its tokens are BOS and then the text.
struct Document {
  std::string path;              ///< relative to the packed directory
  std::int64_t first_token = 0;  ///< position of its BOS in the split
  std::int64_t num_tokens = 0;   ///< BOS included, so at least 2
  std::int64_t num_bytes = 0;    ///< of its text: what bits per byte divides by
};

/// The label of a token that is there to be read, not learned.
constexpr std::int64_t kIgnoredLabel = -100;

/// A split of a packed data set (format: src/data/README.md), memory-mapped: opening costs neither time nor memory in
/// proportion to the text. Documents follow each other without gaps: token 0 is the BOS of document 0.
/// Reading is thread-safe. A split may be empty (num_documents() == 0).
class TokenDataset {
 public:
  /// Checks the index, the sizes of all files and every document's borders. Throws Error (io) naming the file.
  static TokenDataset open(const std::filesystem::path& directory, Split split);

  const Tokenizer& tokenizer() const { return tokenizer_; }
  /// Digest of the packed texts and their paths, in order, both splits together.
  const std::string& source_md5() const { return source_md5_; }

  std::int64_t num_tokens() const { return num_tokens_; }
  std::int64_t num_documents() const { return num_documents_; }
  std::int64_t num_bytes() const { return num_bytes_; }

  Document document(std::int64_t index) const;
  /// Index of the document that holds token `position`.
  std::int64_t document_at(std::int64_t position) const;

  /// Copies tokens [first, first + ids.size()) into `ids`. Throws invalid_argument outside [0, num_tokens()], and io
  /// for an id that is not below the vocabulary, which only a damaged file has.
  void read_tokens(std::int64_t first, std::span<std::int64_t> ids) const;

  /// Whether some tokens are there to be read, not learned.
  bool has_loss_mask() const { return !loss_.empty(); }
  /// As read_tokens, but kIgnoredLabel in place of a token that is not to be learned.
  void read_labels(std::int64_t first, std::span<std::int64_t> labels) const;

 private:
  TokenDataset() = default;
  void check_documents(const std::filesystem::path& file) const;
  std::int64_t first_token_of(std::int64_t document) const;
  void read_shard(std::int64_t shard, const std::byte* tokens, std::int64_t first, std::span<std::int64_t> ids) const;

  Tokenizer tokenizer_;
  std::string source_md5_;
  std::int64_t num_tokens_ = 0;
  std::int64_t num_documents_ = 0;
  std::int64_t num_bytes_ = 0;
  std::int64_t token_bytes_ = 2;   // of an id: little-endian u16 or u32
  std::int64_t shard_tokens_ = 1;  // in every shard but the last
  std::filesystem::path directory_;
  Split split_ = Split::train;
  std::vector<MappedFile> tokens_;
  std::vector<MappedFile> loss_;  // a byte a token; empty without a mask
  MappedFile documents_;          // DocumentRecord
  MappedFile paths_;              // NUL-terminated
};

}  // namespace comba::data
