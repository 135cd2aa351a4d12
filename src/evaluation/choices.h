#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "data/tokenizer.h"
#include "models/causal_lm.h"

namespace comba::evaluation {

/// A question whose answers are ways to go on after its context.
struct ChoiceQuestion {
  std::string context;               ///< may be empty
  std::vector<std::string> choices;  ///< appended to the context as they are: a space between is theirs
  std::int64_t answer = 0;           ///< which one is right, from 0
};

/// How often a model finds the right choice the likeliest. Ties go to the earlier choice.
struct ChoicesResult {
  std::int64_t questions = 0;
  std::int64_t correct = 0;             ///< by the likelihood of the whole choice
  std::int64_t correct_normalized = 0;  ///< by its likelihood a byte (what lm-evaluation-harness calls acc_norm)

  double accuracy() const { return static_cast<double>(correct) / static_cast<double>(questions); }
  double accuracy_normalized() const {
    return static_cast<double>(correct_normalized) / static_cast<double>(questions);
  }
};

/// `on_question` is told how many questions are done. Throws Error(invalid_argument) for no questions, or for one that
/// has less than two choices, an empty one, or an answer that is none of them, naming its place from 1.
ChoicesResult score_choices(models::CausalLM& model, const data::Tokenizer& tokenizer,
                            std::span<const ChoiceQuestion> questions,
                            const std::function<void(std::int64_t done)>& on_question = nullptr);

}  // namespace comba::evaluation
