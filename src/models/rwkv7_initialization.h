#pragma once

#include <torch/nn/module.h>

#include "models/model_config.h"

namespace comba::models {

/// Sets the vectors of an RWKV7 to what its authors begin with (arXiv 2503.14456, appendix): they vary over the
/// channels and with depth. Its matrices are set elsewhere, but for the first of each low-rank map, which is 0.
void set_rwkv7_vectors(torch::nn::Module& model, const ModelConfig& config);

}  // namespace comba::models
