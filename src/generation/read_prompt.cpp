#include "generation/read_prompt.h"

#include "models/read_tokens.h"

namespace comba::generation {

ReadPrompt read_prompt(models::CausalLM& model, const Prompt& prompt, std::int64_t chunk_length, TokenSampler& sampler,
                       const std::function<void(std::int64_t tokens)>& on_chunk) {
  ReadPrompt read{.state = prompt.after ? prompt.after->model.clone() : model.initial_state(/*batch=*/1),
                  .next_logits = prompt.after ? prompt.after->next_logits : at::Tensor()};
  if (prompt.after) sampler.observe(prompt.after->recent_tokens);
  if (!prompt.tokens.empty()) {
    read.next_logits = models::read_tokens(model, prompt.tokens, read.state, chunk_length, on_chunk);
    sampler.observe(prompt.tokens);
  }
  return read;
}

}  // namespace comba::generation
