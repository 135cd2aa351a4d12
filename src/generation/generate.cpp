#include "generation/generate.h"

#include <algorithm>

#include "base/message.h"

namespace comba::generation {
namespace {

/// Logits of the token after `ids`, whose state is advanced past them.  -> [vocab] f32
at::Tensor next_logits(models::CausalLM& model, std::span<const std::int64_t> ids, models::ModelState& state) {
  const at::Tensor input_ids = at::tensor(c10::ArrayRef<std::int64_t>(ids.data(), ids.size()), at::kLong).unsqueeze(0);
  return model.forward(input_ids, &state).select(0, 0).select(0, -1).to(at::kFloat).contiguous();
}

}  // namespace

std::vector<std::int64_t> generate(models::CausalLM& model, std::span<const std::int64_t> prompt,
                                   const GenerateOptions& options, const TokenCallback& on_token) {
  const std::int64_t rows = model.config().vocab_size;
  const std::int64_t vocab = options.vocab > 0 ? options.vocab : rows;
  require(vocab <= rows, ErrorCode::invalid_argument, "[generate] vocab must be at most the model's vocab_size of ",
          rows, "; got ", vocab);
  require(!prompt.empty(), ErrorCode::invalid_argument, "[generate] the prompt must have at least one token");
  require(std::ranges::all_of(prompt, [&](std::int64_t id) { return id >= 0 && id < rows; }),
          ErrorCode::invalid_argument, "[generate] the prompt's ids must be below the model's vocab_size of ", rows);

  const at::NoGradGuard no_grad;
  TokenSampler sampler(options.sampling);
  models::ModelState state = model.initial_state(/*batch=*/1);
  std::vector<std::int64_t> tokens;
  std::span<const std::int64_t> unread = prompt;
  while (static_cast<std::int64_t>(tokens.size()) < options.max_tokens) {
    const at::Tensor logits = next_logits(model, unread, state);
    const std::int64_t token = sampler.sample({logits.data_ptr<float>(), static_cast<std::size_t>(vocab)});
    if (token == options.stop_token) break;
    tokens.push_back(token);
    if (on_token && !on_token(token)) break;
    unread = std::span(tokens).last(1);
  }
  return tokens;
}

}  // namespace comba::generation
