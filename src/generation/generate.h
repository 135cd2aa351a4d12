#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "generation/token_sampler.h"
#include "models/causal_lm.h"

namespace comba::generation {

struct GenerateOptions {
  std::int64_t max_tokens = 256;                ///< tokens to generate, at most
  std::int64_t vocab = 0;                       ///< only ids below it are drawn; 0: all rows of the model
  std::optional<std::int64_t> stop_token = {};  ///< ends the text, and is not part of it
  SamplingOptions sampling = {};
};

/// Is given each token as soon as it is known; false ends the text.
using TokenCallback = std::function<bool(std::int64_t token)>;

/// Continues `prompt`: reads it in one forward pass, then generates token by token with the state carried along, in
/// memory and time that do not grow with the length. Returns the generated tokens.
/// Throws Error(invalid_argument) for an empty prompt, or ids or options outside the model's vocabulary.
std::vector<std::int64_t> generate(models::CausalLM& model, std::span<const std::int64_t> prompt,
                                   const GenerateOptions& options, const TokenCallback& on_token = {});

}  // namespace comba::generation
