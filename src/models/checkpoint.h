#pragma once

#include <filesystem>
#include <memory>

#include "models/causal_lm.h"
#include "models/weight_files.h"

namespace comba::models {

/// Reads a directory in the Hugging Face layout: config.json and the weights, one file or shards, of any floating
/// dtype, into an fp32 model. Throws Error: io when a file is missing or damaged, or naming each tensor that is
/// missing, unknown or of another shape; unsupported as parse_model_config does.
std::shared_ptr<CausalLM> load_model(const std::filesystem::path& directory);

/// The weights alone, into a model that is there; tensors that do not fit it are invalid_argument.
void load_weights(CausalLM& model, const std::filesystem::path& directory);

/// Writes config.json and the weights in the parameters' own dtype, in shards where they have more than `shard_bytes`;
/// makes the directory when there is none. Each file appears whole or not at all.
void save_model(const CausalLM& model, const std::filesystem::path& directory, std::int64_t shard_bytes = kShardBytes);

}  // namespace comba::models
