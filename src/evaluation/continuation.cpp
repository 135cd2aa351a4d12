#include "evaluation/continuation.h"

#include <algorithm>

#include "base/message.h"
#include "models/read_tokens.h"

namespace comba::evaluation {
namespace {

constexpr std::int64_t kChunkLength = 1024;

/// `first_logits` [vocab] f32 are those of the continuation's first token, and `state` is that after the context.
ContinuationScore score_continuation(models::CausalLM& model, models::ModelState state, const at::Tensor& first_logits,
                                     std::span<const std::int64_t> ids) {
  const at::Tensor tokens = at::tensor(c10::ArrayRef<std::int64_t>(ids.data(), ids.size()), at::kLong);
  at::Tensor logits = first_logits.unsqueeze(0);  // [T, vocab]
  if (ids.size() > 1) {
    const at::Tensor others = model.forward(tokens.narrow(0, 0, tokens.size(0) - 1).unsqueeze(0), &state).squeeze(0);
    logits = at::cat({logits, others.to(at::kCPU, at::kFloat)});
  }
  const at::Tensor log_probabilities = at::log_softmax(logits, 1);
  return {.nats = -log_probabilities.gather(1, tokens.unsqueeze(1)).sum(at::kDouble).item<double>(),
          .is_likeliest = at::equal(logits.argmax(1), tokens)};
}

}  // namespace

std::vector<ContinuationScore> score_continuations(models::CausalLM& model, std::span<const std::int64_t> context,
                                                   std::span<const std::vector<std::int64_t>> continuations) {
  const std::int64_t vocab = model.config().vocab_size;
  for (const auto& ids : continuations) {
    require(!ids.empty(), ErrorCode::invalid_argument,
            "[score_continuations] a continuation must have at least one token; got none");
    require(std::ranges::all_of(ids, [&](std::int64_t id) { return id >= 0 && id < vocab; }),
            ErrorCode::invalid_argument, "[score_continuations] ids must be below the model's vocab_size of ", vocab);
  }
  const at::NoGradGuard no_grad;
  models::ModelState state = model.initial_state(/*batch=*/1);
  const at::Tensor first_logits = models::read_tokens(model, context, state, kChunkLength);
  std::vector<ContinuationScore> scores;
  for (const auto& ids : continuations) {
    scores.push_back(score_continuation(model, state.clone(), first_logits, ids));
  }
  return scores;
}

std::vector<std::int64_t> context_tokens(const data::Tokenizer& tokenizer, std::string_view context) {
  std::vector<std::int64_t> ids = tokenizer.encode(context);
  ids.insert(ids.begin(), tokenizer.bos());
  return ids;
}

std::vector<std::int64_t> continuation_tokens(const data::Tokenizer& tokenizer, std::string_view context,
                                              std::string_view continuation) {
  const std::vector<std::int64_t> before = tokenizer.encode(context);
  std::vector<std::int64_t> whole = tokenizer.encode(std::string(context) + std::string(continuation));
  const bool adds = whole.size() > before.size() && std::equal(before.begin(), before.end(), whole.begin());
  if (!adds) return tokenizer.encode(continuation, /*starts_document=*/false);
  whole.erase(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(before.size()));
  return whole;
}

}  // namespace comba::evaluation
