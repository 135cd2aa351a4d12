#pragma once

#include <vector>

#include "models/causal_lm.h"
#include "support/tiny_run.h"

namespace comba::generation {

/// An untrained model, with logits so far apart that rounding decides nothing.
inline models::CausalLM decided_model(const models::ModelConfig& config, std::uint64_t seed = 2) {
  models::CausalLM model(config);
  model.initialize(seed);
  const at::NoGradGuard no_grad;
  model.named_parameters()["model.norm.weight"].mul_(30);
  return model;
}

/// BOS and `length - 1` bytes.
inline std::vector<std::int64_t> some_tokens(std::int64_t length, std::int64_t seed) {
  std::vector<std::int64_t> ids(static_cast<std::size_t>(length), 256);
  for (std::size_t i = 1; i < ids.size(); ++i) ids[i] = static_cast<std::int64_t>(i * i * 31 + i) * seed % 256;
  return ids;
}

}  // namespace comba::generation
