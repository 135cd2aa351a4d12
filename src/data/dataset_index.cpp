#include "data/dataset_index.h"

#include <limits>

#include "base/file.h"
#include "base/message.h"
#include "data/json.h"

namespace comba::data {
namespace {

using nlohmann::json;

constexpr const char* kFormat = "comba-tokens";
constexpr int kVersion = 2;

/// Looks fields of one object up, and blames the file and the field when they are not as they should be.
class Fields {
 public:
  Fields(const json& object, std::string file, std::string prefix)
      : object_(object), file_(std::move(file)), prefix_(std::move(prefix)) {
    require(object_.is_object(), ErrorCode::io, "[TokenDataset] '", file_,
            "': ", prefix_.empty() ? "the content" : prefix_, " must be a JSON object");
  }

  const json& at(const char* key) const {
    const auto found = object_.find(key);
    require(found != object_.end(), ErrorCode::io, "[TokenDataset] '", file_, "': ", name(key), " is missing");
    return *found;
  }

  Fields object(const char* key) const { return Fields(at(key), file_, name(key)); }

  std::int64_t count(const char* key) const {
    const json& value = at(key);
    // Token counts are multiplied by small sizes; a quarter of the range keeps every product in it.
    constexpr auto kMost = std::numeric_limits<std::int64_t>::max() / 32;
    const bool valid = value.is_number_unsigned() && value.get<std::uint64_t>() <= kMost;
    require(valid, ErrorCode::io, "[TokenDataset] '", file_, "': ", name(key), " must be a count; got ", shown(value));
    return value.get<std::int64_t>();
  }

  bool flag(const char* key) const {
    const json& value = at(key);
    require(value.is_boolean(), ErrorCode::io, "[TokenDataset] '", file_, "': ", name(key),
            " must be true or false; got ", shown(value));
    return value.get<bool>();
  }

  void expect(const char* key, const json& wanted) const {
    const json& value = at(key);
    require(value == wanted, ErrorCode::io, "[TokenDataset] '", file_, "': ", name(key), " must be ", wanted.dump(),
            "; got ", shown(value), " (pack the text again with this program)");
  }

 private:
  std::string name(const char* key) const { return prefix_.empty() ? key : prefix_ + "." + key; }

  const json& object_;
  std::string file_;
  std::string prefix_;
};

}  // namespace

const char* name_of(Split split) { return split == Split::train ? "train" : "heldout"; }

std::string file_name(Split split, const char* part) { return std::string(name_of(split)) + "." + part; }

std::string shard_name(Split split, std::int64_t shard, const char* part) {
  std::string number = std::to_string(shard);
  if (number.size() < 5) number.insert(0, 5 - number.size(), '0');
  return concat(name_of(split), '-', number, '.', part);
}

std::int64_t token_bytes_of(const Tokenizer& tokenizer) { return tokenizer.vocab() <= 65536 ? 2 : 4; }

std::string to_json(const DatasetIndex& index) {
  nlohmann::ordered_json json;
  json["format"] = kFormat;
  json["version"] = kVersion;
  json["tokenizer"] = nlohmann::ordered_json::parse(index.tokenizer.to_json());
  json["vocab"] = index.tokenizer.vocab();
  json["token_bytes"] = token_bytes_of(index.tokenizer);
  json["shard_tokens"] = index.shard_tokens;
  json["loss_mask"] = index.has_loss_mask;
  json["source_md5"] = index.source_md5;
  for (const Split split : kSplits) {
    const SplitCounts& counts = index[split];
    json["splits"][name_of(split)] = {{"tokens", counts.num_tokens},
                                      {"documents", counts.num_documents},
                                      {"bytes", counts.num_bytes},
                                      {"path_bytes", counts.path_bytes}};
  }
  return json.dump(2) + "\n";
}

bool is_data_set(const std::filesystem::path& directory) {
  std::error_code absent;
  if (!std::filesystem::is_regular_file(directory / kIndexFile, absent)) return false;
  const json root = parse_json(read_file(directory / kIndexFile));
  return root.is_object() && root.contains("format") && root["format"] == kFormat;
}

DatasetIndex read_index(const std::filesystem::path& directory) {
  const std::filesystem::path path = directory / kIndexFile;
  const std::string file = path.string();
  std::error_code failure;
  const bool is_other_folder =
      std::filesystem::is_directory(directory, failure) && !std::filesystem::exists(path, failure) && !failure;
  require(!is_other_folder, ErrorCode::io, "[TokenDataset] a data set has an index.json; got none in '",
          directory.string(), "' (`comba data pack` makes data sets)");
  const json root = parse_json(read_file(path));
  require(!root.is_discarded(), ErrorCode::io, "[TokenDataset] '", file, "' must be JSON; it is damaged");
  const Fields fields(root, file, "");
  fields.expect("format", kFormat);
  fields.expect("version", kVersion);

  DatasetIndex index;
  index.tokenizer = Tokenizer::from_json(fields.at("tokenizer").dump(), file);
  fields.expect("vocab", index.tokenizer.vocab());
  fields.expect("token_bytes", token_bytes_of(index.tokenizer));
  index.shard_tokens = fields.count("shard_tokens");
  require(index.shard_tokens > 0, ErrorCode::io, "[TokenDataset] '", file, "': shard_tokens must be at least 1; got 0");
  index.has_loss_mask = fields.flag("loss_mask");
  const json& source = fields.at("source_md5");
  require(source.is_string(), ErrorCode::io, "[TokenDataset] '", file, "': source_md5 must be a string; got ",
          shown(source));
  index.source_md5 = source.get<std::string>();
  for (const Split split : kSplits) {
    const Fields counts = fields.object("splits").object(name_of(split));
    index[split] = {.num_tokens = counts.count("tokens"),
                    .num_documents = counts.count("documents"),
                    .num_bytes = counts.count("bytes"),
                    .path_bytes = counts.count("path_bytes")};
  }
  return index;
}

}  // namespace comba::data
