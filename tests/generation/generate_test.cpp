#include "generation/generate.h"

#include <gtest/gtest.h>

#include <vector>

#include "comba/error.h"
#include "support/tiny_run.h"

namespace comba::generation {
namespace {

class Generate : public ::testing::Test {
 protected:
  Generate() : model_(testing::tiny_model_config()) {
    model_.initialize(2);
    // Untrained logits are nearly equal; larger ones make a choice that rounding does not decide.
    const at::NoGradGuard no_grad;
    model_.named_parameters()["model.norm.weight"].mul_(30);
  }

  /// What generate() must give, by reading everything again for each token.
  std::vector<std::int64_t> generate_from_scratch(const GenerateOptions& options) {
    const at::NoGradGuard no_grad;
    TokenSampler sampler(options.sampling);
    std::vector<std::int64_t> text = prompt_;
    for (std::int64_t i = 0; i < options.max_tokens; ++i) {
      const at::Tensor logits = model_.forward(at::tensor(text, at::kLong).unsqueeze(0))[0][-1].contiguous();
      text.push_back(sampler.sample({logits.data_ptr<float>(), static_cast<std::size_t>(logits.numel())}));
    }
    return {text.begin() + static_cast<std::ptrdiff_t>(prompt_.size()), text.end()};
  }

  models::CausalLM model_;
  const std::vector<std::int64_t> prompt_ = {256, 116, 104, 101, 32};
};

TEST_F(Generate, WithStateIsTheSameAsFromScratch) {
  const GenerateOptions sampled = {.max_tokens = 100, .sampling = {.temperature = 0.7, .top_k = 20, .seed = 3}};
  EXPECT_EQ(generate(model_, prompt_, sampled), generate_from_scratch(sampled));
  const GenerateOptions greedy = {.max_tokens = 100, .sampling = {.temperature = 0}};
  EXPECT_EQ(generate(model_, prompt_, greedy), generate_from_scratch(greedy));
}

TEST_F(Generate, GivesEachTokenAtOnceAndEndsWhenTold) {
  std::vector<std::int64_t> seen;
  const auto tokens = generate(model_, prompt_, {.max_tokens = 50}, [&](std::int64_t token) {
    seen.push_back(token);
    return seen.size() < 7;
  });
  EXPECT_EQ(seen.size(), 7u);
  EXPECT_EQ(tokens, seen);
}

TEST_F(Generate, EndsBeforeTheStopToken) {
  const auto all = generate(model_, prompt_, {.max_tokens = 30});
  const auto until = generate(model_, prompt_, {.max_tokens = 30, .stop_token = all[12]});
  ASSERT_LE(until.size(), 12u);
  EXPECT_EQ(all[until.size()], all[12]);
  EXPECT_EQ(until, std::vector<std::int64_t>(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(until.size())));
}

TEST_F(Generate, DrawsNoIdBeyondTheVocabulary) {
  const GenerateOptions options = {.max_tokens = 200, .vocab = 5, .sampling = {.temperature = 10}};
  for (const std::int64_t token : generate(model_, prompt_, options)) EXPECT_LT(token, 5);
}

TEST_F(Generate, MakesNothingWhenNothingIsWanted) { EXPECT_TRUE(generate(model_, prompt_, {.max_tokens = 0}).empty()); }

TEST_F(Generate, RefusesWhatTheModelCannotRead) {
  EXPECT_THROW(generate(model_, {}, {}), Error);
  const std::vector<std::int64_t> unknown = {264};
  EXPECT_THROW(generate(model_, unknown, {}), Error);
  EXPECT_THROW(generate(model_, prompt_, {.vocab = 265}), Error);
}

}  // namespace
}  // namespace comba::generation
