#include "data/token_dataset.h"

#include <algorithm>
#include <cstring>

#include "base/message.h"
#include "data/dataset_index.h"

namespace comba::data {
namespace {

constexpr std::uint64_t kMostBytes = std::uint64_t{1} << 58;  // of a document; a sum of a few of them cannot wrap

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

/// The shards of one part, of `item_bytes` a token. There is always a first one.
std::vector<MappedFile> map_shards(const std::filesystem::path& directory, Split split, const char* part,
                                   const DatasetIndex& index, std::int64_t item_bytes) {
  std::vector<MappedFile> shards;
  std::int64_t left = index[split].num_tokens;
  do {
    const std::int64_t count = std::min(left, index.shard_tokens);
    const auto number = static_cast<std::int64_t>(shards.size());
    shards.push_back(map_exactly(directory / shard_name(split, number, part), count * item_bytes));
    left -= count;
  } while (left > 0);
  return shards;
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

  dataset.directory_ = directory;
  dataset.split_ = split;
  dataset.token_bytes_ = token_bytes_of(index.tokenizer);
  dataset.shard_tokens_ = index.shard_tokens;
  const std::filesystem::path documents_file = directory / file_name(split, "documents");
  constexpr std::int64_t kRecordBytes = sizeof(DocumentRecord);
  dataset.tokens_ = map_shards(directory, split, "tokens", index, dataset.token_bytes_);
  if (index.has_loss_mask) dataset.loss_ = map_shards(directory, split, "loss", index, 1);
  dataset.documents_ = map_exactly(documents_file, counts.num_documents * kRecordBytes);
  dataset.paths_ = map_exactly(directory / file_name(split, "paths"), counts.path_bytes);
  dataset.check_documents(documents_file);
  return dataset;
}

void TokenDataset::check_documents(const std::filesystem::path& file) const {
  // Unsigned sums wrap on hostile values without harm: the comparison at the end then fails.
  std::uint64_t next_path_byte = 0, total_bytes = 0;
  const auto paths = paths_.bytes();
  const auto num_tokens = static_cast<std::uint64_t>(num_tokens_);
  for (std::int64_t i = 0; i < num_documents_; ++i) {
    const DocumentRecord record = record_of(documents_, i);
    const std::uint64_t next_token = i + 1 < num_documents_ ? record_of(documents_, i + 1).first_token : num_tokens;
    const bool in_place = i > 0 || record.first_token == 0;
    const bool has_tokens = record.first_token < num_tokens && next_token <= num_tokens &&
                            next_token >= record.first_token + 2;  // BOS and a token of text
    // How many bytes a token stands for is known only where it is one.
    const bool fits = tokenizer_.is_bytes() ? next_token - record.first_token - 1 == record.num_bytes
                                            : record.num_bytes >= 1 && record.num_bytes <= kMostBytes;
    require(in_place && has_tokens && fits && record.first_path_byte == next_path_byte, ErrorCode::io,
            "[TokenDataset] '", file.string(), "': document ", i, " of ", num_tokens_,
            " tokens must follow the one before it; got first token ", record.first_token, ", ", record.num_bytes,
            " bytes, then token ", next_token);
    const auto* path = paths.data() + next_path_byte;
    const void* end = paths.size() > next_path_byte ? std::memchr(path, 0, paths.size() - next_path_byte) : nullptr;
    require(end != nullptr, ErrorCode::io, "[TokenDataset] '", file.string(), "': document ", i, " has no path");
    next_path_byte += static_cast<const std::byte*>(end) - path + 1;
    total_bytes += record.num_bytes;
  }
  const bool complete = (num_documents_ > 0 || num_tokens_ == 0) && next_path_byte == paths.size() &&
                        total_bytes == static_cast<std::uint64_t>(num_bytes_);
  require(complete, ErrorCode::io, "[TokenDataset] '", file.string(), "' must cover ", num_tokens_, " tokens of ",
          num_bytes_, " bytes and ", paths.size(), " bytes of paths; got ", num_documents_, " documents of ",
          total_bytes, " bytes with ", next_path_byte, " bytes of paths");
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
  for (std::int64_t i = 0; i < count;) {
    const std::int64_t shard = (first + i) / shard_tokens_, offset = (first + i) % shard_tokens_;
    const std::int64_t part = std::min(count - i, shard_tokens_ - offset);
    const std::byte* tokens = tokens_[static_cast<std::size_t>(shard)].bytes().data() + offset * token_bytes_;
    read_shard(shard, tokens, first + i, ids.subspan(static_cast<std::size_t>(i), static_cast<std::size_t>(part)));
    i += part;
  }
}

void TokenDataset::read_shard(std::int64_t shard, const std::byte* tokens, std::int64_t first,
                              std::span<std::int64_t> ids) const {
  const std::int64_t vocab = tokenizer_.vocab();
  for (std::size_t i = 0; i < ids.size(); ++i) {
    ids[i] = token_bytes_ == 2 ? std::int64_t{reinterpret_cast<const std::uint16_t*>(tokens)[i]}
                               : std::int64_t{reinterpret_cast<const std::uint32_t*>(tokens)[i]};
    require(ids[i] < vocab, ErrorCode::io, "[TokenDataset] '",
            (directory_ / shard_name(split_, shard, "tokens")).string(), "': token ",
            first + static_cast<std::int64_t>(i), " must be below the vocabulary of ", vocab, "; got ", ids[i],
            " (damaged file?)");
  }
}

void TokenDataset::read_labels(std::int64_t first, std::span<std::int64_t> labels) const {
  read_tokens(first, labels);
  if (!has_loss_mask()) return;
  for (std::size_t i = 0; i < labels.size(); ++i) {
    const std::int64_t position = first + static_cast<std::int64_t>(i);
    const auto& shard = loss_[static_cast<std::size_t>(position / shard_tokens_)];
    if (shard.bytes()[static_cast<std::size_t>(position % shard_tokens_)] == std::byte{0}) labels[i] = kIgnoredLabel;
  }
}

}  // namespace comba::data
