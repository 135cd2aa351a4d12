#include "evaluation/choices.h"

#include <algorithm>

#include "base/message.h"
#include "evaluation/continuation.h"

namespace comba::evaluation {
namespace {

void check(const ChoiceQuestion& question, std::int64_t number) {
  const auto num_choices = static_cast<std::int64_t>(question.choices.size());
  require(num_choices >= 2, ErrorCode::invalid_argument, "[choices] a question must have at least two choices; got ",
          num_choices, " (question ", number, ")");
  require(std::ranges::none_of(question.choices, &std::string::empty), ErrorCode::invalid_argument,
          "[choices] a choice must have at least one character; got an empty one (question ", number, ")");
  require(question.answer >= 0 && question.answer < num_choices, ErrorCode::invalid_argument,
          "[choices] answer must be from 0 to ", num_choices - 1, "; got ", question.answer, " (question ", number,
          ")");
}

std::int64_t index_of_least(const std::vector<double>& values) {
  return std::ranges::min_element(values) - values.begin();
}

}  // namespace

ChoicesResult score_choices(models::CausalLM& model, const data::Tokenizer& tokenizer,
                            std::span<const ChoiceQuestion> questions,
                            const std::function<void(std::int64_t done)>& on_question) {
  require(!questions.empty(), ErrorCode::invalid_argument, "[choices] there must be at least one question; got none");
  for (std::size_t i = 0; i < questions.size(); ++i) check(questions[i], static_cast<std::int64_t>(i) + 1);
  ChoicesResult result;
  for (const ChoiceQuestion& question : questions) {
    std::vector<std::vector<std::int64_t>> continuations;
    for (const std::string& choice : question.choices) {
      continuations.push_back(continuation_tokens(tokenizer, question.context, choice));
    }
    std::vector<double> nats, nats_per_byte;
    const auto scores = score_continuations(model, context_tokens(tokenizer, question.context), continuations);
    for (std::size_t i = 0; i < scores.size(); ++i) {
      nats.push_back(scores[i].nats);
      nats_per_byte.push_back(scores[i].nats / static_cast<double>(question.choices[i].size()));
    }
    ++result.questions;
    result.correct += index_of_least(nats) == question.answer;
    result.correct_normalized += index_of_least(nats_per_byte) == question.answer;
    if (on_question) on_question(result.questions);
  }
  return result;
}

}  // namespace comba::evaluation
