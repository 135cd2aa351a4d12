#include "models/weight_files.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/message.h"

namespace comba::models {
namespace fs = std::filesystem;
namespace {

constexpr const char* kSingleFile = "model.safetensors";
constexpr const char* kIndexFile = "model.safetensors.index.json";
const Metadata kMetadata = {{"format", "pt"}};

template <class... Parts>
void require_index(bool holds, const fs::path& path, const Parts&... parts) {
  require(holds, ErrorCode::io, "[checkpoint] ", parts..., " (", path.string(), ")");
}

/// The names of each shard's tensors, by the name of the shard.
std::map<std::string, std::vector<std::string>> read_index(const fs::path& path) {
  const auto index = nlohmann::json::parse(read_file(path), nullptr, /*allow_exceptions=*/false);
  require_index(index.is_object() && index.contains("weight_map") && index["weight_map"].is_object(), path,
                "the index must be a JSON object with a weight_map");
  std::map<std::string, std::vector<std::string>> shards;
  for (const auto& [tensor, shard] : index["weight_map"].items()) {
    const std::string file = shard.is_string() ? shard.get<std::string>() : std::string();
    require_index(file.ends_with(".safetensors") && file.find('/') == std::string::npos, path,
                  "weight_map must name a .safetensors file beside the index; got ", shard.dump(), " for ", tensor);
    shards[file].push_back(tensor);
  }
  return shards;
}

NamedTensors read_shards(const fs::path& directory) {
  NamedTensors tensors;
  for (const auto& [shard, names] : read_index(directory / kIndexFile)) {
    NamedTensors in_shard = read_safetensors(directory / shard).tensors;
    for (const std::string& name : names) {
      const auto found = in_shard.find(name);
      require_index(found != in_shard.end(), directory / shard, "the shard must hold what the index says; missing ",
                    name);
      tensors.insert(in_shard.extract(found));
    }
    require_index(in_shard.empty(), directory / shard, "the index must name every tensor of a shard; got ",
                  in_shard.empty() ? "" : in_shard.begin()->first, " beside them");
  }
  return tensors;
}

/// Cuts the tensors, in the order of their names, where the next one would make a shard too large.
std::vector<NamedTensors> cut_into_shards(const NamedTensors& tensors, std::int64_t shard_bytes) {
  std::vector<NamedTensors> shards(1);
  std::int64_t bytes = 0;
  for (const auto& [name, tensor] : tensors) {
    const auto more = static_cast<std::int64_t>(tensor.nbytes());
    if (bytes + more > shard_bytes && !shards.back().empty()) {
      shards.emplace_back();
      bytes = 0;
    }
    shards.back()[name] = tensor;
    bytes += more;
  }
  return shards;
}

void write_shards(const fs::path& directory, const std::vector<NamedTensors>& shards) {
  nlohmann::ordered_json weight_map = nlohmann::ordered_json::object();
  std::size_t total_bytes = 0;
  for (std::size_t i = 0; i < shards.size(); ++i) {
    const std::string file = fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, shards.size());
    write_safetensors(directory / file, shards[i], kMetadata);
    for (const auto& [name, tensor] : shards[i]) {
      weight_map[name] = file;
      total_bytes += tensor.nbytes();
    }
  }
  nlohmann::ordered_json index;
  index["metadata"]["total_size"] = total_bytes;
  index["weight_map"] = std::move(weight_map);
  write_file_atomically(directory / kIndexFile, index.dump(2) + '\n');
  std::error_code failure;
  fs::remove(directory / kSingleFile, failure);
  require(!failure, ErrorCode::io, "[checkpoint] cannot remove ", (directory / kSingleFile).string(), ": ",
          failure.message());
}

}  // namespace

NamedTensors read_weight_files(const fs::path& directory) {
  std::error_code failure;
  const bool has_shards = !fs::exists(directory / kSingleFile, failure) && fs::exists(directory / kIndexFile, failure);
  return has_shards ? read_shards(directory) : read_safetensors(directory / kSingleFile).tensors;
}

void write_weight_files(const fs::path& directory, const NamedTensors& tensors, std::int64_t shard_bytes) {
  const std::vector<NamedTensors> shards = cut_into_shards(tensors, shard_bytes);
  if (shards.size() > 1) return write_shards(directory, shards);
  write_safetensors(directory / kSingleFile, tensors, kMetadata);
}

}  // namespace comba::models
