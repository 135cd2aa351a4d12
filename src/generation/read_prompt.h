#pragma once

#include <cstdint>
#include <functional>

#include "generation/generate.h"

namespace comba::generation {

struct ReadPrompt {
  models::ModelState state;  ///< of one stream
  at::Tensor next_logits;    ///< [vocab] f32, on the CPU
};

/// Reads a prompt in chunks of `chunk_length` tokens, after the text that it follows; `sampler` observes both.
ReadPrompt read_prompt(models::CausalLM& model, const Prompt& prompt, std::int64_t chunk_length, TokenSampler& sampler,
                       const std::function<void(std::int64_t tokens)>& on_chunk);

}  // namespace comba::generation
