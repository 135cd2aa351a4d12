#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <string>

#include "data/token_dataset.h"

/// The files of a packed data set, as the packer writes and the reader expects them: see README.md.
namespace comba::data {

/// One entry of `<split>.documents`.
struct DocumentRecord {
  std::uint64_t first_token;
  std::uint64_t num_bytes;
  std::uint64_t first_path_byte;
};
static_assert(sizeof(DocumentRecord) == 24, "the record is a file format");

constexpr std::array<Split, 2> kSplits = {Split::train, Split::heldout};
constexpr const char* kIndexFile = "index.json";

/// "train.documents", "heldout.paths"
std::string file_name(Split split, const char* part);
/// "train-00000.tokens", "heldout-00012.loss"
std::string shard_name(Split split, std::int64_t shard, const char* part);
/// Bytes an id takes in a shard.
std::int64_t token_bytes_of(const Tokenizer& tokenizer);

struct SplitCounts {
  std::int64_t num_tokens = 0;
  std::int64_t num_documents = 0;
  std::int64_t num_bytes = 0;   ///< of text
  std::int64_t path_bytes = 0;  ///< size of `<split>.paths`
};

struct DatasetIndex {
  Tokenizer tokenizer;
  std::string source_md5;
  std::int64_t shard_tokens = 0;      ///< tokens in every shard but the last of a split
  bool has_loss_mask = false;         ///< there are shards `<split>-<number>.loss`
  std::array<SplitCounts, 2> splits;  // by Split

  SplitCounts& operator[](Split split) { return splits[static_cast<int>(split)]; }
  const SplitCounts& operator[](Split split) const { return splits[static_cast<int>(split)]; }
};

std::string to_json(const DatasetIndex& index);

/// Whether `directory` holds a packed data set, of whatever version.
bool is_data_set(const std::filesystem::path& directory);

/// Reads `directory`/index.json. Throws Error (io) naming the file and the field that is wrong.
DatasetIndex read_index(const std::filesystem::path& directory);

}  // namespace comba::data
