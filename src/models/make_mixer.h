#pragma once

#include <ATen/ATen.h>

#include <memory>

#include "models/model_config.h"
#include "nn/mixers/mixer.h"

namespace comba::models {

/// The mixer that a configuration wants in one layer, from 0: attention in the layers that it names, the model type's
/// own elsewhere. Its parameters are allocated, not set.
std::shared_ptr<nn::Mixer> make_mixer(const ModelConfig& config, int64_t layer, const at::TensorOptions& options);

}  // namespace comba::models
