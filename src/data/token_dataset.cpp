#include "data/token_dataset.h"

#include <cstring>

#include "base/message.h"
#include "data/dataset_index.h"

namespace comba::data {
namespace {

DocumentRecord record_of(const MappedFile& documents, std::int64_t index) {
  DocumentRecord record;
  std::memcpy(&record, documents.bytes().data() + index * sizeof record, sizeof record);
  return record;
}

MappedFile map_exactly(const std::filesystem::path& path, std::int64_t size) {
  MappedFile file(path);
  const auto actual = static_cast<std::int64_t>(file.bytes().size());
  require(actual == size, ErrorCode::io, "[TokenDataset] '", path.string(), "' must have ", size,
          " bytes, as its index says; got ", actual, actual < size ? " (truncated?)" : "");
  return file;
}

}  // namespace

TokenDataset TokenDataset::open(const std::filesystem::path& directory, Split split) {
  const DatasetIndex index = read_index(directory);
  const SplitCounts& counts = index[split];
  TokenDataset dataset;
  dataset.tokenizer_ = index.tokenizer;
  dataset.source_md5_ = index.source_md5;
  dataset.num_tokens_ = counts.num_tokens;
  dataset.num_documents_ = counts.num_documents;
  dataset.num_bytes_ = counts.num_bytes;

  dataset.tokens_file_ = directory / file_name(split, "tokens");
  const std::filesystem::path documents_file = directory / file_name(split, "documents");
  constexpr std::int64_t kRecordBytes = sizeof(DocumentRecord);
  constexpr std::int64_t kTokenBytes = sizeof(Token);
  dataset.tokens_ = map_exactly(dataset.tokens_file_, counts.num_tokens * kTokenBytes);
  dataset.documents_ = map_exactly(documents_file, counts.num_documents * kRecordBytes);
  dataset.paths_ = map_exactly(directory / file_name(split, "paths"), counts.path_bytes);
  dataset.check_documents(documents_file);
  return dataset;
}

void TokenDataset::check_documents(const std::filesystem::path& file) const {
  // Unsigned sums wrap on hostile values without harm: the comparison at the end then fails.
  std::uint64_t next_token = 0, next_path_byte = 0, total_bytes = 0;
  const auto paths = paths_.bytes();
  for (std::int64_t i = 0; i < num_documents_; ++i) {
    const DocumentRecord record = record_of(documents_, i);
    const bool adjacent = record.first_token == next_token && record.first_path_byte == next_path_byte;
    const bool fits = record.num_bytes >= 1 && record.num_bytes < static_cast<std::uint64_t>(num_tokens_);
    require(adjacent && fits, ErrorCode::io, "[TokenDataset] '", file.string(), "': document ", i,
            " must follow the one before it; got first token ", record.first_token, ", ", record.num_bytes, " bytes");
    const auto* path = paths.data() + next_path_byte;
    const void* end = paths.size() > next_path_byte ? std::memchr(path, 0, paths.size() - next_path_byte) : nullptr;
    require(end != nullptr, ErrorCode::io, "[TokenDataset] '", file.string(), "': document ", i, " has no path");
    next_path_byte += static_cast<const std::byte*>(end) - path + 1;
    next_token += 1 + record.num_bytes;  // BOS and the bytes
    total_bytes += record.num_bytes;
  }
  const bool complete = next_token == static_cast<std::uint64_t>(num_tokens_) && next_path_byte == paths.size() &&
                        total_bytes == static_cast<std::uint64_t>(num_bytes_);
  require(complete, ErrorCode::io, "[TokenDataset] '", file.string(), "' must cover ", num_tokens_, " tokens of ",
          num_bytes_, " bytes; got ", next_token, " tokens of ", total_bytes, " bytes");
}

std::int64_t TokenDataset::first_token_of(std::int64_t document) const {
  return document == num_documents_ ? num_tokens_
                                    : static_cast<std::int64_t>(record_of(documents_, document).first_token);
}

Document TokenDataset::document(std::int64_t index) const {
  require(index >= 0 && index < num_documents_, ErrorCode::invalid_argument,
          "[TokenDataset::document] index must be in [0, ", num_documents_, "); got ", index);
  const DocumentRecord record = record_of(documents_, index);
  return {.path = reinterpret_cast<const char*>(paths_.bytes().data() + record.first_path_byte),
          .first_token = static_cast<std::int64_t>(record.first_token),
          .num_tokens = first_token_of(index + 1) - static_cast<std::int64_t>(record.first_token),
          .num_bytes = static_cast<std::int64_t>(record.num_bytes)};
}

std::int64_t TokenDataset::document_at(std::int64_t position) const {
  require(position >= 0 && position < num_tokens_, ErrorCode::invalid_argument,
          "[TokenDataset::document_at] position must be in [0, ", num_tokens_, "); got ", position);
  std::int64_t low = 0, high = num_documents_;  // first_token_of(low) <= position < first_token_of(high)
  while (high - low > 1) {
    const std::int64_t middle = low + (high - low) / 2;
    (first_token_of(middle) <= position ? low : high) = middle;
  }
  return low;
}

void TokenDataset::read_tokens(std::int64_t first, std::span<std::int64_t> ids) const {
  const auto count = static_cast<std::int64_t>(ids.size());
  require(first >= 0 && first <= num_tokens_ && count <= num_tokens_ - first, ErrorCode::invalid_argument,
          "[TokenDataset::read_tokens] tokens must be within [0, ", num_tokens_, "); got ", count, " from ", first);
  const auto* tokens = reinterpret_cast<const Token*>(tokens_.bytes().data()) + first;
  const std::int64_t vocab = tokenizer_.vocab();
  for (std::int64_t i = 0; i < count; ++i) {
    const std::int64_t id = tokens[i];
    require(id < vocab, ErrorCode::io, "[TokenDataset] '", tokens_file_.string(), "': token ", first + i,
            " must be below the vocabulary of ", vocab, "; got ", id, " (damaged file?)");
    ids[i] = id;
  }
}

}  // namespace comba::data
