#pragma once

#include <cstdint>
#include <functional>
#include <span>

#include "data/token_dataset.h"
#include "models/causal_lm.h"

/// How well a model predicts text it has not learned from.
namespace comba::evaluation {

/// What one document, or several together, cost to predict.
struct EvaluationResult {
  double nats = 0;          ///< total cross entropy
  std::int64_t tokens = 0;  ///< tokens scored: all but each document's BOS and, where prompts are not scored, theirs
  std::int64_t bytes = 0;   ///< of text those tokens stand for
  std::int64_t skipped_tokens = 0;  ///< of prompts, which were read but not scored
  std::int64_t documents = 0;

  double loss() const;           ///< nats / tokens
  double perplexity() const;     ///< exp(nats / tokens), a token
  double bits_per_byte() const;  ///< nats / ln 2 / bytes
};

struct EvaluationOptions {
  /// Tokens a forward pass, at most. Documents, or windows, that are short enough share one; a longer one takes
  /// several, through which its state is carried. So this bounds memory and changes nothing but rounding. 0: 2048 on
  /// the CPU, and on a GPU up to 16384, the fewer the larger the vocabulary.
  std::int64_t pass_tokens = 0;
  /// 0: the whole document before a token is its context. N: the document is cut into windows, in each of which N
  /// tokens are predicted; a token's context is what lies before it in its window, and the first one's is its
  /// predecessor.
  std::int64_t window = 0;
  /// Also what the loss mask of the data set says is not learned. Without: as in training, that is only read.
  bool score_prompts = false;
  /// Called after each document with its own score.
  std::function<void(const data::Document& document, const EvaluationResult& score)> on_document = nullptr;
};

/// Scores every document of a split from its first to its last token, each from an empty state. BOS conditions and is
/// not predicted. The softmax is over all rows of the model, padding rows included.
/// Throws Error(invalid_argument) for a split without a token to score, pass_tokens or a window below 0, or ids outside
/// the model's vocabulary.
EvaluationResult evaluate(models::CausalLM& model, const data::TokenDataset& dataset, const EvaluationOptions& options);

/// Cross entropy in nats of ids[1..], each given all ids before it; only of those whose `labels`, when given, are not
/// data::kIgnoredLabel.
double score_document(models::CausalLM& model, std::span<const std::int64_t> ids, std::int64_t chunk_length,
                      std::span<const std::int64_t> labels = {});

}  // namespace comba::evaluation
