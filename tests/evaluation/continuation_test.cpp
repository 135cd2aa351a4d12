#include "evaluation/continuation.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <vector>

#include "comba/error.h"
#include "evaluation/choices.h"
#include "evaluation/evaluate.h"
#include "evaluation/last_word.h"
#include "support/tiny_run.h"

namespace comba::evaluation {
namespace {

/// Judges of a text's bytes: an untrained model, with logits so far apart that rounding decides nothing.
class Judgement : public ::testing::Test {
 protected:
  Judgement() : model_(testing::tiny_model_config()) {
    model_.initialize(2);
    const at::NoGradGuard no_grad;
    model_.named_parameters()["model.norm.weight"].mul_(30);
  }

  /// Cross entropy of `continuation`, by scoring whole texts.
  double nats_of(const std::string& context, const std::string& continuation) {
    const auto score = [&](const std::string& text) {
      return score_document(model_, context_tokens(tokenizer_, text), 2048);
    };
    return score(context + continuation) - (context.empty() ? 0 : score(context));
  }

  /// The `count` likeliest bytes after `text`, one after the other.
  std::string likeliest(std::string text, int count) {
    const at::NoGradGuard no_grad;
    std::string found;
    for (; count > 0; --count) {
      const at::Tensor ids = at::tensor(context_tokens(tokenizer_, text), at::kLong).unsqueeze(0);
      const auto next = static_cast<char>(model_.forward(ids)[0][-1].argmax().item<std::int64_t>());
      text += next;
      found += next;
    }
    return found;
  }

  models::CausalLM model_;
  const data::Tokenizer tokenizer_ = data::Tokenizer::from_json(R"({"type": "bytes"})", "test");
};

TEST_F(Judgement, ContinuationsCostWhatTheyAddToTheirContext) {
  for (const std::string context : {"", "a", "the state of the system"}) {
    const std::vector<std::string> texts = {" x", "y", " and much more", likeliest(context, 1), likeliest(context, 5)};
    std::vector<std::vector<std::int64_t>> continuations;
    for (const auto& text : texts) continuations.push_back(continuation_tokens(tokenizer_, context, text));
    const auto scores = score_continuations(model_, context_tokens(tokenizer_, context), continuations);
    ASSERT_EQ(scores.size(), texts.size());
    for (std::size_t i = 0; i < texts.size(); ++i) {
      EXPECT_NEAR(scores[i].nats, nats_of(context, texts[i]), 1e-2) << context << texts[i];
      EXPECT_EQ(scores[i].is_likeliest, texts[i] == likeliest(context, static_cast<int>(texts[i].size()))) << texts[i];
    }
    EXPECT_TRUE(scores[3].is_likeliest && scores[4].is_likeliest);
  }
}

TEST(ContinuationTokens, ThereIsNoDocumentsStartWithinOne) {
  // A model that puts a space before each document.
  const auto tokenizer = data::Tokenizer::from_sentencepiece(std::filesystem::path(COMBA_SOURCE_DIR) /
                                                             "tests/data/fixtures/prefix_bpe.model");
  ASSERT_NE(tokenizer.encode("e"), tokenizer.encode("e", /*starts_document=*/false));
  int by_themselves = 0;
  const std::string text = "the state of the system decays";
  for (std::size_t border = 1; border + 1 < text.size(); ++border) {
    const std::string context = text.substr(0, border), rest = text.substr(border);
    std::vector<std::int64_t> whole = context_tokens(tokenizer, context);
    const std::vector<std::int64_t> ids = continuation_tokens(tokenizer, context, rest);
    whole.insert(whole.end(), ids.begin(), ids.end());
    EXPECT_EQ(tokenizer.decode(whole), text) << "cut at " << border;
    std::vector<std::int64_t> at_once = context_tokens(tokenizer, text);
    by_themselves += whole != at_once;
  }
  EXPECT_GT(by_themselves, 0) << "no cut was within a piece";
}

TEST_F(Judgement, ContinuationsMustBeSomethingTheModelKnows) {
  const std::vector<std::int64_t> context = {256};
  const auto score = [&](std::vector<std::int64_t> ids) { return score_continuations(model_, context, {&ids, 1}); };
  EXPECT_THROW(score({}), Error);
  EXPECT_THROW(score({264}), Error);
  EXPECT_THROW(score({-1, 3}), Error);
  const std::vector<std::int64_t> one = {1};
  EXPECT_THROW(score_continuations(model_, {}, {&one, 1}), Error);
}

TEST_F(Judgement, TheLastWordIsWhatFollowsTheLastSpace) {
  const std::vector<std::string> texts = {"she heard it from the sea", "two words", "a b"};
  double nats = 0;
  for (const std::string& text : texts) {
    const std::size_t space = text.rfind(' ');
    nats += nats_of(text.substr(0, space), text.substr(space));
  }
  std::int64_t done = 0;
  const auto result = score_last_words(model_, tokenizer_, texts, [&](std::int64_t texts_done) { done = texts_done; });
  EXPECT_EQ(result.texts, 3);
  EXPECT_EQ(done, 3);
  EXPECT_NEAR(result.nats, nats, 1e-2);
  EXPECT_NEAR(result.perplexity(), std::exp(nats / 3), 1e-3 * result.perplexity());
}

TEST_F(Judgement, ALastWordIsRightWhenEachOfItsTokensIsTheLikeliest) {
  // A model without layers, in which x is followed by a space, and a space and b by b.
  const at::NoGradGuard no_grad;
  for (auto& parameter : model_.named_parameters()) {
    const std::string& name = parameter.key();
    if (name.ends_with("o_proj.weight") || name.ends_with("down_proj.weight")) parameter.value().zero_();
  }
  at::Tensor from = model_.named_parameters()["model.embeddings.weight"];
  at::Tensor to = model_.named_parameters()["lm_head.weight"];
  to.zero_();
  for (const auto& [token, direction] : {std::pair{'x', 0}, {' ', 1}, {'b', 1}}) {
    from[token].zero_();
    from[token][direction] = 1;
  }
  to[' '][0] = 1;
  to['b'][1] = 1;

  const std::vector<std::string> texts = {"x b", "x bb", "x bc", "x c", "xx bbb"};
  const auto result = score_last_words(model_, tokenizer_, texts);
  EXPECT_EQ(result.correct, 3);
  EXPECT_DOUBLE_EQ(result.accuracy(), 0.6);
}

TEST_F(Judgement, LastWordsNeedAWordAndSomethingBefore) {
  for (const char* text : {"", "word", " word", "word "}) {
    const std::vector<std::string> texts = {"fine text", text};
    EXPECT_THROW(score_last_words(model_, tokenizer_, texts), Error) << text;
  }
  EXPECT_THROW(score_last_words(model_, tokenizer_, {}), Error);
}

TEST_F(Judgement, ChoicesGoByLikelihoodAndByLikelihoodAByte) {
  const std::string context = "the key is";
  const std::vector<std::string> choices = {" q", " " + likeliest(context + " ", 12), " zz"};
  // The short choice costs less, and the long one less a byte.
  ASSERT_LT(nats_of(context, choices[0]), nats_of(context, choices[1]));
  ASSERT_LT(nats_of(context, choices[1]) / 13, nats_of(context, choices[0]) / 2);
  ASSERT_LT(nats_of(context, choices[0]), nats_of(context, choices[2]));
  const auto score = [&](std::int64_t answer) {
    const ChoiceQuestion question{.context = context, .choices = choices, .answer = answer};
    return score_choices(model_, tokenizer_, {&question, 1});
  };
  EXPECT_EQ(score(0).correct, 1);
  EXPECT_EQ(score(0).correct_normalized, 0);
  EXPECT_EQ(score(1).correct, 0);
  EXPECT_EQ(score(1).correct_normalized, 1);
  EXPECT_EQ(score(2).correct + score(2).correct_normalized, 0);

  const std::vector<ChoiceQuestion> questions(4, {.context = context, .choices = choices, .answer = 1});
  std::int64_t done = 0;
  const auto result = score_choices(model_, tokenizer_, questions, [&](std::int64_t n) { done = n; });
  EXPECT_EQ(done, 4);
  EXPECT_EQ(result.questions, 4);
  EXPECT_EQ(result.accuracy(), 0);
  EXPECT_EQ(result.accuracy_normalized(), 1);
}

TEST_F(Judgement, EqualChoicesGoToTheEarlier) {
  const ChoiceQuestion question{.context = "", .choices = {"same", "same"}, .answer = 0};
  EXPECT_EQ(score_choices(model_, tokenizer_, {&question, 1}).correct, 1);
}

TEST_F(Judgement, QuestionsThatMakeNoSenseAreRefused) {
  const auto refused = [&](const ChoiceQuestion& question) {
    EXPECT_THROW(score_choices(model_, tokenizer_, {&question, 1}), Error);
  };
  refused({.context = "x", .choices = {"a"}, .answer = 0});
  refused({.context = "x", .choices = {"a", ""}, .answer = 0});
  refused({.context = "x", .choices = {"a", "b"}, .answer = 2});
  refused({.context = "x", .choices = {"a", "b"}, .answer = -1});
  EXPECT_THROW(score_choices(model_, tokenizer_, {}), Error);
}

}  // namespace
}  // namespace comba::evaluation
