#pragma once

#include <cstdint>
#include <string>

#include "models/model_config.h"

namespace comba::tasks {

/// The sizes of a model that learns a task.
struct ModelSizes {
  std::int64_t vocab = 0;
  std::int64_t hidden_size = 64;  ///< D
  std::int64_t num_layers = 2;    ///< L
  std::int64_t num_heads = 2;     ///< of dim D / num_heads, in keys and values
};

/// The model that a mixer's name stands for: a model_type of config.json ("comba", "gated_deltanet", "softmax" for
/// "transformer", ...), and keys of it with other values: "gated_deltanet:allow_neg_eigval=true". There is no MLP.
/// Throws Error(invalid_argument), with the text, for one that makes no model, and as parse_model_config does.
models::ModelConfig mixer_config(const std::string& text, const ModelSizes& sizes);

}  // namespace comba::tasks
