#pragma once

#include <cstdint>

#include "models/model_config.h"

namespace comba::models {

/// Floating-point operations that one token costs in training, forward and backward, whatever is computed a second
/// time:
///
///     linear maps      6 for each weight, the output projection's included (2 forward, 4 backward)
///     delta rule       a value head: 20 K V + 14 C (K + V), chunks of C = 64 (6 K V + 4 C (K + V) of it forward)
///     attention        12 times the width of the queries for each token seen, half of the context on average
struct TrainingFlops {
  double linear = 0;
  double mixer = 0;
  double total() const { return linear + mixer; }
};

TrainingFlops training_flops_per_token(const ModelConfig& config, std::int64_t context_length);

}  // namespace comba::models
