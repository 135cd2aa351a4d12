#pragma once

#include <filesystem>
#include <memory>

#include "models/causal_lm.h"

namespace comba::models {

/// Reads a directory in the Hugging Face layout: config.json and model.safetensors, weights of any floating dtype, into
/// an fp32 model. Throws Error: io when a file is missing or damaged; invalid_argument naming each tensor that is
/// missing, unknown or of another shape; unsupported as parse_model_config does.
std::shared_ptr<CausalLM> load_model(const std::filesystem::path& directory);

/// Writes config.json and model.safetensors in the parameters' own dtype; makes the directory when there is none.
/// Each file appears whole or not at all.
void save_model(const CausalLM& model, const std::filesystem::path& directory);

}  // namespace comba::models
