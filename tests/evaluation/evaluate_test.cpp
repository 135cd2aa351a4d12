#include "evaluation/evaluate.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <numeric>
#include <vector>

#include "comba/error.h"
#include "support/tiny_run.h"

namespace comba::evaluation {
namespace {

class Evaluate : public ::testing::Test {
 protected:
  Evaluate() : model_(testing::tiny_model_config()) { model_.initialize(1); }

  const testing::TinyDataset data_;
  const data::TokenDataset heldout_ = data_.open(data::Split::heldout);
  models::CausalLM model_;
};

std::vector<std::int64_t> some_ids(std::int64_t count) {
  std::vector<std::int64_t> ids(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<std::int64_t>(i * i * 31 % 256);
  ids[0] = 256;
  return ids;
}

TEST_F(Evaluate, ChunksWithCarriedStateScoreAsTheWholeDocument) {
  for (const std::int64_t length : {2, 3, 64, 131, 300}) {
    const std::vector<std::int64_t> ids = some_ids(length);
    const double whole = score_document(model_, ids, length);
    for (const std::int64_t chunk : {1, 7, 64, 100}) {
      EXPECT_NEAR(score_document(model_, ids, chunk), whole, 1e-6 * whole + 1e-5)
          << length << " in chunks of " << chunk;
    }
  }
}

TEST_F(Evaluate, AgreesWithTheTrainingLoss) {
  const std::vector<std::int64_t> ids = some_ids(100);
  const at::Tensor tokens = at::tensor(ids, at::kLong).unsqueeze(0);
  const at::NoGradGuard no_grad;
  const double mean = model_.loss(tokens.slice(1, 0, 99), tokens.slice(1, 1, 100)).item<double>();
  EXPECT_NEAR(score_document(model_, ids, 2048), 99 * mean, 1e-3);
}

TEST_F(Evaluate, CountsEachByteOnceAndNoBos) {
  const EvaluationResult result = evaluate(model_, heldout_, {});
  EXPECT_GT(result.documents, 1) << "the test needs several documents";
  EXPECT_EQ(result.documents, heldout_.num_documents());
  EXPECT_EQ(result.bytes, heldout_.num_bytes());
  EXPECT_EQ(result.tokens, heldout_.num_bytes());
  EXPECT_EQ(heldout_.num_tokens(), heldout_.num_bytes() + heldout_.num_documents());
}

TEST_F(Evaluate, DocumentsDoNotSeeEachOther) {
  double sum = 0;
  std::vector<std::int64_t> ids;
  for (std::int64_t i = heldout_.num_documents() - 1; i >= 0; --i) {
    const data::Document document = heldout_.document(i);
    ids.resize(static_cast<std::size_t>(document.num_tokens));
    heldout_.read_tokens(document.first_token, ids);
    sum += score_document(model_, ids, 2048);
  }
  EXPECT_NEAR(evaluate(model_, heldout_, {}).nats, sum, 1e-6 * sum);
}

/// Documents of 1 to 5000 bytes, in no order, every other one with a prompt.
class UnequalDocuments {
 public:
  UnequalDocuments() {
    std::ofstream file(directory_.path() / "a.jsonl");
    for (const int length : {40, 1, 5000, 2, 700, 7, 3, 2047, 1, 1, 120, 2049, 300, 64}) {
      file << R"({"q": "", "text": ")" << std::string(static_cast<std::size_t>(length), 'x') << "\"}\n";
      file << R"({"q": "what follows )" << length << R"(? ", "text": "one more"})"
           << "\n";
    }
    file.close();
    data::pack({.inputs = {directory_.path() / "a.jsonl"},
                .output = directory_.path() / "data",
                .records = {.text = "text", .prompt = "q"}});
  }
  data::TokenDataset open() const { return data::TokenDataset::open(directory_.path() / "data", data::Split::train); }

 private:
  testing::TemporaryDirectory directory_;
};

models::ModelConfig hybrid_config() {
  models::ModelConfig config = testing::tiny_model_config();
  config.attn = models::AttentionConfig{.layers = {1}, .num_heads = 2, .num_kv_heads = 1, .window_size = 50};
  return config;
}

TEST_F(Evaluate, DocumentsThatShareAPassScoreAsEachByItself) {
  const UnequalDocuments documents;
  const data::TokenDataset dataset = documents.open();
  ASSERT_GT(dataset.num_documents(), 20);
  models::CausalLM hybrid(hybrid_config());
  hybrid.initialize(2);
  for (models::CausalLM* model : {&model_, &hybrid}) {
    for (const std::int64_t window : {0, 90}) {
      std::vector<double> expected;
      for (std::int64_t i = 0; i < dataset.num_documents(); ++i) {
        const data::Document document = dataset.document(i);
        std::vector<std::int64_t> ids(static_cast<std::size_t>(document.num_tokens)), labels(ids.size());
        dataset.read_tokens(document.first_token, ids);
        dataset.read_labels(document.first_token, labels);
        const std::size_t step = window > 0 ? static_cast<std::size_t>(window) : ids.size();
        expected.push_back(0);
        for (std::size_t first = 0; first + 1 < ids.size(); first += step) {
          const std::size_t size = std::min(step + 1, ids.size() - first);
          expected.back() +=
              score_document(*model, std::span(ids).subspan(first, size), 2048, std::span(labels).subspan(first, size));
        }
      }
      for (const std::int64_t tokens : {100, 2000, 1 << 20, 0}) {
        std::int64_t told = 0;
        const auto compare = [&](const data::Document& document, const EvaluationResult& score) {
          EXPECT_EQ(document.first_token, dataset.document(told).first_token) << "the order is that of the data set";
          const double nats = expected.at(static_cast<std::size_t>(told++));
          EXPECT_NEAR(score.nats, nats, 1e-6 * nats) << document.num_tokens << " tokens, passes of " << tokens;
        };
        evaluate(*model, dataset, {.pass_tokens = tokens, .window = window, .on_document = compare});
        EXPECT_EQ(told, dataset.num_documents());
      }
    }
  }
}

TEST_F(Evaluate, PromptsAreReadAndNotScored) {
  const testing::TemporaryDirectory directory;
  std::ofstream(directory.path() / "a.jsonl") << R"({"q": "what decays? ", "text": "the state\u00e9"})"
                                              << "\n"
                                              << R"({"q": "", "text": "all of this"})"
                                              << "\n";
  data::pack({.inputs = {directory.path() / "a.jsonl"},
              .output = directory.path() / "data",
              .records = {.text = "text", .prompt = "q"}});
  const auto dataset = data::TokenDataset::open(directory.path() / "data", data::Split::train);
  ASSERT_EQ(dataset.num_documents(), 2);
  ASSERT_TRUE(dataset.has_loss_mask());

  // By hand: the answer costs what it adds to its prompt.
  std::vector<std::int64_t> ids(static_cast<std::size_t>(dataset.num_tokens()));
  dataset.read_tokens(0, ids);
  const std::span<const std::int64_t> first(ids.data(), static_cast<std::size_t>(dataset.document(0).num_tokens));
  const std::span<const std::int64_t> second = std::span<const std::int64_t>(ids).subspan(first.size());
  const std::int64_t prompt = std::string("what decays? ").size(), answer = std::string("the state\xC3\xA9").size();
  const double all = score_document(model_, first, 2048),
               of_prompt = score_document(model_, first.first(prompt + 1), 2048);
  const double other = score_document(model_, second, 2048);

  std::vector<EvaluationResult> scores;
  for (const std::int64_t tokens : {5, 30, 2048}) {
    scores.clear();
    const auto note = [&](const data::Document&, const EvaluationResult& score) { scores.push_back(score); };
    const auto result = evaluate(model_, dataset, {.pass_tokens = tokens, .on_document = note});
    EXPECT_NEAR(result.nats, all - of_prompt + other, 1e-3);
    EXPECT_EQ(result.tokens, answer + 11);
    EXPECT_EQ(result.bytes, answer + 11);
    EXPECT_EQ(result.skipped_tokens, prompt);
    EXPECT_EQ(scores[0].tokens, answer);
    EXPECT_EQ(scores[1].skipped_tokens, 0);
  }
  EXPECT_EQ(evaluate(model_, dataset, {.window = 4}).tokens, answer + 11);
  const auto with_prompts = evaluate(model_, dataset, {.score_prompts = true});
  EXPECT_NEAR(with_prompts.nats, all + other, 1e-3);
  EXPECT_EQ(with_prompts.tokens, prompt + answer + 11);
  EXPECT_EQ(with_prompts.bytes, dataset.num_bytes());
  EXPECT_EQ(with_prompts.skipped_tokens, 0);
}

TEST_F(Evaluate, AModelThatKnowsNothingNeedsAsManyBitsAsItsVocabularyHas) {
  const EvaluationResult result = evaluate(model_, heldout_, {});
  EXPECT_NEAR(result.bits_per_byte(), std::log2(264.0), 0.1);
  EXPECT_NEAR(result.perplexity(), std::exp2(result.bits_per_byte()), 1e-6);
}

TEST_F(Evaluate, TellsTheScoreOfEachDocument) {
  EvaluationResult sum;
  std::vector<std::string> paths;
  const auto result =
      evaluate(model_, heldout_, {.on_document = [&](const data::Document& document, const auto& score) {
                 paths.push_back(document.path);
                 EXPECT_EQ(score.documents, 1);
                 EXPECT_EQ(score.bytes, document.num_bytes);
                 sum.nats += score.nats;
                 sum.tokens += score.tokens;
                 sum.bytes += score.bytes;
               }});
  ASSERT_EQ(static_cast<std::int64_t>(paths.size()), heldout_.num_documents());
  EXPECT_EQ(paths.back(), heldout_.document(heldout_.num_documents() - 1).path);
  EXPECT_EQ(sum.bytes, heldout_.num_bytes());
  EXPECT_EQ(sum.tokens, result.tokens);
  EXPECT_NEAR(sum.nats, result.nats, 1e-9 * result.nats);
  EXPECT_DOUBLE_EQ(result.loss(), result.nats / static_cast<double>(result.tokens));
}

TEST_F(Evaluate, WindowsKnowNothingOfEachOtherAndCountEachTokenOnce) {
  constexpr std::int64_t kWindow = 50;
  std::vector<double> nats;
  const auto note = [&](const data::Document&, const EvaluationResult& score) { nats.push_back(score.nats); };
  const EvaluationResult windowed =
      evaluate(model_, heldout_, {.pass_tokens = 16, .window = kWindow, .on_document = note});
  EXPECT_EQ(windowed.tokens, heldout_.num_bytes());

  // Token by token: what it adds to the text before it in its window.
  const data::Document document = heldout_.document(0);
  ASSERT_GT(document.num_tokens, 3 * kWindow / 2);
  std::vector<std::int64_t> ids(static_cast<std::size_t>(document.num_tokens));
  heldout_.read_tokens(document.first_token, ids);
  double sum = 0;
  for (std::size_t target = 1; target < ids.size(); ++target) {
    const std::size_t first = (target - 1) / kWindow * kWindow;
    const auto text = std::span<const std::int64_t>(ids).subspan(first, target + 1 - first);
    sum += score_document(model_, text, 2048) - score_document(model_, text.first(text.size() - 1), 2048);
  }
  EXPECT_NEAR(nats.at(0), sum, 1e-5 * sum);

  const EvaluationResult whole = evaluate(model_, heldout_, {});
  EXPECT_NE(windowed.nats, whole.nats);
  EXPECT_EQ(evaluate(model_, heldout_, {.window = 1 << 20}).nats, whole.nats);
}

TEST_F(Evaluate, RefusesWhatItCannotScore) {
  EXPECT_THROW(evaluate(model_, heldout_, {.pass_tokens = -1}), Error);
  EXPECT_THROW(evaluate(model_, heldout_, {.window = -1}), Error);
  models::ModelConfig small = testing::tiny_model_config();
  small.vocab_size = 256;
  models::CausalLM other(small);
  EXPECT_THROW(evaluate(other, heldout_, {}), Error);

  const testing::TemporaryDirectory directory;
  std::ofstream(directory.path() / "text1") << "not held out";
  data::pack({.inputs = {directory.path() / "text1"}, .output = directory.path() / "packed"});
  const auto empty = data::TokenDataset::open(directory.path() / "packed", data::Split::heldout);
  ASSERT_EQ(empty.num_documents(), 0);
  EXPECT_THROW(evaluate(model_, empty, {}), Error);
}

}  // namespace
}  // namespace comba::evaluation
