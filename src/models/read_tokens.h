#pragma once

#include <cstdint>
#include <functional>
#include <span>

#include "models/causal_lm.h"

namespace comba::models {

/// Reads a text into `state`, a stream of one, in chunks: memory for the activations of chunk_length tokens, whatever
/// the length of the text. The chunks change nothing but the rounding. Gradients are not recorded.
/// Returns the logits of the token after the last one.  ids [T], T > 0 -> [vocab] f32
/// `on_chunk`, when given, is told after each chunk how many tokens are read.
/// Throws Error(invalid_argument) for no ids, ids outside the vocabulary or a chunk_length below 1.
at::Tensor read_tokens(CausalLM& model, std::span<const std::int64_t> ids, ModelState& state, std::int64_t chunk_length,
                       const std::function<void(std::int64_t tokens)>& on_chunk = nullptr);

}  // namespace comba::models
