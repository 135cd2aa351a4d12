#pragma once

#include <memory>

#include "models/model_config.h"
#include "nn/mixers/mixer.h"
#include "nn/mixers/rwkv7.h"

namespace comba::models {

/// The mixer of a layer of a model_families() type.
std::shared_ptr<nn::Mixer> make_family_mixer(const ModelConfig& config, int64_t layer,
                                             const at::TensorOptions& options);

/// What an rwkv7 layer is made of, for the block that joins it to its own MLP.
nn::RWKV7Options rwkv7_options(const ModelConfig& config, int64_t layer);

}  // namespace comba::models
