#pragma once

#include <cmath>
#include <cstdint>
#include <functional>
#include <span>
#include <string>

#include "data/tokenizer.h"
#include "models/causal_lm.h"

namespace comba::evaluation {

/// How often a model knows the last word of a text (LAMBADA, arXiv 1606.06031).
struct LastWordResult {
  std::int64_t texts = 0;
  std::int64_t correct = 0;  ///< texts whose last word the model would have written: each token of it is the likeliest
  double nats = 0;           ///< cross entropy of all last words

  double accuracy() const { return static_cast<double>(correct) / static_cast<double>(texts); }
  double perplexity() const { return std::exp(nats / static_cast<double>(texts)); }  ///< a word
};

/// The last word is what follows the last space of a text, and that space belongs to it.
/// `on_text` is told how many texts are done. Throws Error(invalid_argument) for no texts, or for one that does not
/// have a last word and something before it, naming its place from 1.
LastWordResult score_last_words(models::CausalLM& model, const data::Tokenizer& tokenizer,
                                std::span<const std::string> texts,
                                const std::function<void(std::int64_t done)>& on_text = nullptr);

}  // namespace comba::evaluation
