#pragma once

#include <torch/nn/module.h>

#include <cstdint>

#include "models/model_config.h"

namespace comba::models {

/// Sets every parameter of a model as CausalLM::initialize documents, by the last part of its name, in the order of
/// named_parameters(), from one generator seeded with `seed`.
void initialize_parameters(torch::nn::Module& model, const ModelConfig& config, uint64_t seed);

}  // namespace comba::models
