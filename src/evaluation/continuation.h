#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "data/tokenizer.h"
#include "models/causal_lm.h"

namespace comba::evaluation {

/// How a model judges one continuation of a context.
struct ContinuationScore {
  double nats = 0;            ///< cross entropy of all its tokens
  bool is_likeliest = false;  ///< whether each of its tokens is the likeliest one after those before it
};

/// Scores several continuations of one context, which is read once. The softmax is over all rows of the model.
/// Throws Error(invalid_argument) for an empty context or continuation, or ids outside the model's vocabulary.
std::vector<ContinuationScore> score_continuations(models::CausalLM& model, std::span<const std::int64_t> context,
                                                   std::span<const std::vector<std::int64_t>> continuations);

/// BOS and the tokens of `context`.
std::vector<std::int64_t> context_tokens(const data::Tokenizer& tokenizer, std::string_view context);

/// What the tokens of the whole text add to those of `context`; where they do not begin with those, the tokens of
/// `continuation` by itself, as it is within a document.
std::vector<std::int64_t> continuation_tokens(const data::Tokenizer& tokenizer, std::string_view context,
                                              std::string_view continuation);

}  // namespace comba::evaluation
