#include "generation/generate.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "comba/error.h"
#include "generation/model_for_test.h"

namespace comba::generation {
namespace {

using Tokens = std::vector<std::int64_t>;

class Generate : public ::testing::Test {
 protected:
  Continuation continue_prompt(const Prompt& prompt, const GenerateOptions& options,
                               const GenerateEvents& events = {}) {
    return generate(model_, {&prompt, 1}, options, events)[0];
  }
  Tokens tokens_of(const GenerateOptions& options) { return continue_prompt({prompt_}, options).tokens; }

  /// What generate() must give, by reading everything again for each token.
  Tokens generate_from_scratch(const GenerateOptions& options) {
    const at::NoGradGuard no_grad;
    TokenSampler sampler(options.sampling);
    sampler.observe(prompt_);
    Tokens text = prompt_;
    for (std::int64_t i = 0; i < options.max_tokens; ++i) {
      const at::Tensor logits = model_.forward(at::tensor(text, at::kLong).unsqueeze(0))[0][-1].contiguous();
      text.push_back(sampler.sample({logits.data_ptr<float>(), static_cast<std::size_t>(logits.numel())}));
    }
    return {text.begin() + static_cast<std::ptrdiff_t>(prompt_.size()), text.end()};
  }

  models::CausalLM model_ = decided_model(testing::tiny_model_config());
  const Tokens prompt_ = {256, 116, 104, 101, 32};
};

TEST_F(Generate, WithStateIsTheSameAsFromScratch) {
  const GenerateOptions sampled = {.max_tokens = 100, .sampling = {.temperature = 0.7, .top_k = 20, .seed = 3}};
  EXPECT_EQ(tokens_of(sampled), generate_from_scratch(sampled));
  const GenerateOptions greedy = {.max_tokens = 100, .sampling = {.temperature = 0}};
  EXPECT_EQ(tokens_of(greedy), generate_from_scratch(greedy));
  const GenerateOptions penalized = {.max_tokens = 40, .sampling = {.temperature = 0, .repetition_penalty = 1.5}};
  EXPECT_EQ(tokens_of(penalized), generate_from_scratch(penalized));
  EXPECT_NE(tokens_of(penalized), tokens_of({.max_tokens = 40, .sampling = {.temperature = 0}}));
}

TEST_F(Generate, ReadsThePromptInChunksAndTellsHowFar) {
  const Prompt prompt{some_tokens(1000, 1)};
  std::vector<std::int64_t> read;
  const GenerateEvents events{.on_read = [&](std::size_t, std::int64_t tokens) { read.push_back(tokens); }};
  const GenerateOptions greedy{.max_tokens = 20, .sampling = {.temperature = 0}, .chunk_length = 300};
  const Tokens chunked = continue_prompt(prompt, greedy, events).tokens;
  EXPECT_EQ(read, (std::vector<std::int64_t>{300, 600, 900, 1000}));
  EXPECT_EQ(chunked, continue_prompt(prompt, {.max_tokens = 20, .sampling = {.temperature = 0}}).tokens);
}

TEST_F(Generate, TellsEachTokenAtOnceAndEndsWhenTold) {
  Tokens seen;
  const GenerateEvents events{.on_token = [&](std::size_t, std::int64_t token) {
    seen.push_back(token);
    return seen.size() < 7;
  }};
  const Continuation result = continue_prompt({prompt_}, {.max_tokens = 50}, events);
  EXPECT_EQ(seen.size(), 7u);
  EXPECT_EQ(result.tokens, seen);
  EXPECT_EQ(result.finish, Finish::callback);
}

TEST_F(Generate, EndsBeforeTheStopToken) {
  const Tokens all = tokens_of({.max_tokens = 30});
  const Continuation result = continue_prompt({prompt_}, {.max_tokens = 30, .stop_token = all[12]});
  const Tokens& until = result.tokens;
  EXPECT_EQ(result.finish, Finish::stop_token);
  ASSERT_LE(until.size(), 12u);
  EXPECT_EQ(all[until.size()], all[12]);
  EXPECT_EQ(until, Tokens(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(until.size())));
}

TEST_F(Generate, DrawsNoIdBeyondTheVocabulary) {
  for (const std::int64_t token : tokens_of({.max_tokens = 200, .vocab = 5, .sampling = {.temperature = 10}})) {
    EXPECT_LT(token, 5);
  }
}

TEST_F(Generate, MakesNothingWhenNothingIsWanted) {
  EXPECT_TRUE(tokens_of({.max_tokens = 0}).empty());
  EXPECT_TRUE(generate(model_, {}, {}).empty());
}

TEST_F(Generate, RefusesWhatTheModelCannotRead) {
  EXPECT_THROW(continue_prompt({}, {}), Error);
  EXPECT_THROW(continue_prompt({{264}}, {}), Error);
  EXPECT_THROW(continue_prompt({{-1}}, {}), Error);
  EXPECT_THROW(tokens_of({.vocab = 265}), Error);
  EXPECT_THROW(tokens_of({.max_tokens = -1}), Error);
  EXPECT_THROW(tokens_of({.chunk_length = 0}), Error);
  EXPECT_THROW(tokens_of({.batch_size = 0}), Error);
}

TEST_F(Generate, TheStateDoesNotGrowWithTheText) {
  const GenerateOptions options{.max_tokens = 10, .keep_states = true};
  const Continuation brief = continue_prompt({some_tokens(10, 1)}, options);
  const Continuation lengthy = continue_prompt({some_tokens(5000, 1)}, options);
  EXPECT_EQ(brief.state->model.position, 20);
  EXPECT_EQ(lengthy.state->model.position, 5010);
  EXPECT_EQ(brief.state->num_bytes(), lengthy.state->num_bytes());
}

TEST_F(Generate, GoesOnFromAStateAsIfThereHadBeenNoPause) {
  for (const double penalty : {1.0, 4.0}) {
    GenerateOptions options{.max_tokens = 30,
                            .sampling = {.temperature = 0, .repetition_penalty = penalty, .repetition_window = 20},
                            .keep_states = true};
    const Tokens whole = tokens_of(options);
    options.max_tokens = 13;
    const Continuation first = continue_prompt({prompt_}, options);
    options.max_tokens = 17;
    for (int time = 0; time < 2; ++time) {  // the state is not used up
      Tokens text = first.tokens;
      const Tokens second = continue_prompt({.tokens = {}, .after = &*first.state}, options).tokens;
      text.insert(text.end(), second.begin(), second.end());
      EXPECT_EQ(text, whole);
    }
  }
}

TEST_F(Generate, APromptMayFollowAState) {
  const GenerateOptions read_only{.max_tokens = 0, .keep_states = true};
  const GenerateOptions greedy{.max_tokens = 20, .sampling = {.temperature = 0}};
  const Tokens start = {256, 116}, rest = {104, 101, 32};
  const Continuation read = continue_prompt({start}, read_only);
  EXPECT_EQ(continue_prompt({.tokens = rest, .after = &*read.state}, greedy).tokens, tokens_of(greedy));
}

TEST_F(Generate, AStateHoldsTheTokenThatACallbackEndedAt) {
  const GenerateOptions greedy{.max_tokens = 20, .sampling = {.temperature = 0}, .keep_states = true};
  int count = 0;
  const GenerateEvents events{.on_token = [&](std::size_t, std::int64_t) { return ++count < 8; }};
  const Continuation first = continue_prompt({prompt_}, greedy, events);
  EXPECT_EQ(first.state->model.position, static_cast<std::int64_t>(prompt_.size()) + 8);
  const Tokens whole = tokens_of(greedy);
  const Tokens second = continue_prompt({.tokens = {}, .after = &*first.state}, greedy).tokens;
  EXPECT_TRUE(std::equal(whole.begin() + 8, whole.end(), second.begin()));
}

/// Models whose rows are one batch, and one whose rows are not: every second layer is attention.
class GenerateBatch : public ::testing::TestWithParam<bool> {
 protected:
  static models::ModelConfig config() {
    models::ModelConfig config = testing::tiny_model_config();
    if (GetParam())
      config.attn = models::AttentionConfig{.layers = {1}, .num_heads = 2, .num_kv_heads = 1, .window_size = {}};
    return config;
  }

  models::CausalLM model_ = decided_model(config());
};

TEST_P(GenerateBatch, EachTextIsWhatItIsAlone) {
  std::vector<Prompt> prompts;
  for (const std::int64_t length : {5, 1, 40, 3, 70}) prompts.push_back({some_tokens(length, length)});
  // A token that ends texts early makes room in the middle of the batch.
  const GenerateOptions free{.max_tokens = 12, .sampling = {.temperature = 0}};
  const std::int64_t stop = generate(model_, {&prompts[2], 1}, free)[0].tokens[7];
  for (const double temperature : {0.0, 0.7}) {
    GenerateOptions options{.max_tokens = 12, .stop_token = stop, .sampling = {.temperature = temperature, .seed = 4}};
    options.keep_states = true;
    std::vector<Continuation> alone;
    for (const Prompt& prompt : prompts) alone.push_back(generate(model_, {&prompt, 1}, options)[0]);
    for (const std::int64_t batch_size : {2, 3, 8}) {
      options.batch_size = batch_size;
      const auto together = generate(model_, prompts, options);
      for (std::size_t i = 0; i < prompts.size(); ++i) {
        EXPECT_EQ(together[i].tokens, alone[i].tokens) << "prompt " << i << ", batch size " << batch_size;
        EXPECT_EQ(together[i].finish, alone[i].finish);
        EXPECT_EQ(together[i].state->model.position, alone[i].state->model.position);
        EXPECT_TRUE(at::allclose(together[i].state->next_logits, alone[i].state->next_logits, 1e-3, 1e-3));
      }
    }
  }
}

TEST_P(GenerateBatch, ContinuesNoMoreTextsAtATimeThanTold) {
  std::vector<Prompt> prompts(9, Prompt{some_tokens(4, 1)});
  std::size_t open = 0, most = 0, ended = 0;
  std::vector<bool> begun(prompts.size(), false);
  const GenerateEvents events{.on_read =
                                  [&](std::size_t text, std::int64_t) {
                                    begun[text] = true;
                                    most = std::max(most, ++open);
                                  },
                              .on_token = nullptr,
                              .on_end =
                                  [&](std::size_t text, const Continuation& continuation) {
                                    EXPECT_TRUE(begun[text]);
                                    EXPECT_EQ(continuation.tokens.size(), 3u);
                                    --open, ++ended;
                                  }};
  generate(model_, prompts, {.max_tokens = 3, .batch_size = 4}, events);
  EXPECT_EQ(most, 4u);
  EXPECT_EQ(ended, prompts.size());
}

INSTANTIATE_TEST_SUITE_P(Models, GenerateBatch, ::testing::Bool(),
                         [](const auto& info) { return info.param ? "hybrid" : "recurrent"; });

}  // namespace
}  // namespace comba::generation
