#include "generation/gpu/generate_on_gpu.h"

#include <gmock/gmock.h>

#include <algorithm>

#include "generation/gpu/gpu_fixture.h"

namespace comba::generation {
namespace {

class GenerateOnGpu : public OnGpu {
 protected:
  /// How far the tokens of a greedy text are from the likeliest, at most: in logits, beside their size.
  static double largest_lag(models::CausalLM& model, const std::vector<std::int64_t>& prompt,
                            const std::vector<std::int64_t>& text) {
    std::vector<std::int64_t> all = prompt;
    all.insert(all.end(), text.begin(), text.end());
    const auto count = static_cast<std::int64_t>(text.size()), start = static_cast<std::int64_t>(prompt.size()) - 1;
    const at::Tensor logits = model.forward(at::tensor(all, at::kLong).unsqueeze(0))[0].narrow(0, start, count);
    const at::Tensor chosen = logits.gather(1, at::tensor(text, at::kLong).unsqueeze(1));
    return (logits.amax(1, true) - chosen).max().item<double>() / rms(logits);
  }
};

TEST_F(GenerateOnGpu, WritesWhatTheCpuWrites) {
  const at::NoGradGuard no_grad;
  const std::vector<Prompt> prompts = {{some_tokens(5, 1)}, {some_tokens(90, 2)}, {some_tokens(2, 3)}};
  const GenerateOptions options = {.max_tokens = 50, .sampling = {.temperature = 0}, .batch_size = 2};
  int same = 0;
  for (std::uint64_t seed = 1; seed <= 4; ++seed) {
    const Pair models = pair(testing::tiny_model_config(), seed);
    ASSERT_EQ(gpu_refusal(*models.gpu, options), "");
    const auto expected = generate(*models.cpu, prompts, options);
    const auto results = generate(*models.gpu, prompts, options);
    for (std::size_t i = 0; i < prompts.size(); ++i) {
      const auto &text = results[i].tokens, &other = expected[i].tokens;
      ASSERT_EQ(text.size(), 50u);
      same += static_cast<int>(std::ranges::mismatch(text, other).in1 - text.begin());
      // Where two tokens are as likely but for the rounding of bf16, the texts part.
      EXPECT_LE(largest_lag(*models.cpu, prompts[i].tokens, text), 0.1) << "seed " << seed << ", prompt " << i;
      EXPECT_EQ(largest_lag(*models.cpu, prompts[i].tokens, other), 0) << "what the CPU writes is the likeliest";
    }
  }
  EXPECT_GE(same, 12 * 50 / 4) << "tokens before they part";
}

TEST_F(GenerateOnGpu, EachTextIsWhatItIsAlone) {
  const Pair models = pair(testing::tiny_model_config());
  std::vector<Prompt> prompts;
  for (const std::int64_t length : {5, 1, 40, 3, 70, 12, 9}) prompts.push_back({some_tokens(length, length)});
  const GenerateOptions free{.max_tokens = 12, .sampling = {.temperature = 0}};
  const std::int64_t stop = generate(*models.gpu, {&prompts[2], 1}, free)[0].tokens[7];
  for (const double temperature : {0.0, 0.7}) {
    GenerateOptions options{.max_tokens = 12, .stop_token = stop, .sampling = {.temperature = temperature, .seed = 4}};
    std::vector<Continuation> alone;
    for (const Prompt& prompt : prompts) alone.push_back(generate(*models.gpu, {&prompt, 1}, options)[0]);
    for (const std::int64_t batch_size : {2, 3, 8}) {
      for (const bool keep_states : {false, true}) {
        options.batch_size = batch_size, options.keep_states = keep_states;
        const auto together = generate(*models.gpu, prompts, options);
        for (std::size_t i = 0; i < prompts.size(); ++i) {
          EXPECT_EQ(together[i].tokens, alone[i].tokens) << "prompt " << i << ", batch size " << batch_size;
          EXPECT_EQ(together[i].finish, alone[i].finish);
        }
      }
    }
  }
}

TEST_F(GenerateOnGpu, GoesOnFromAState) {
  const Pair models = pair(testing::tiny_model_config());
  const Prompt prompt{some_tokens(20, 4)};
  for (const double penalty : {1.0, 4.0}) {
    GenerateOptions options{.max_tokens = 30,
                            .sampling = {.temperature = 0, .repetition_penalty = penalty, .repetition_window = 20},
                            .keep_states = true};
    const auto whole = generate(*models.gpu, {&prompt, 1}, options)[0];
    EXPECT_EQ(whole.state->model.position, 50);
    for (const bool by_callback : {false, true}) {
      options.max_tokens = by_callback ? 25 : 13;
      std::size_t seen = 0;
      const GenerateEvents events{.on_token = [&](std::size_t, std::int64_t) { return !by_callback || ++seen < 13; }};
      const Continuation first = generate(*models.gpu, {&prompt, 1}, options, events)[0];
      ASSERT_EQ(first.tokens.size(), 13u);
      EXPECT_EQ(first.state->model.position, 33);
      options.max_tokens = 17;
      const Prompt rest{.tokens = {}, .after = &*first.state};
      std::vector<std::int64_t> text = first.tokens;
      const auto second = generate(*models.gpu, {&rest, 1}, options)[0].tokens;
      text.insert(text.end(), second.begin(), second.end());
      // The callback's last token was read layer by layer, with another rounding; a penalty makes near ties of logits.
      if (by_callback) text.resize(penalty == 1.0 ? 14 : 13);
      EXPECT_TRUE(std::equal(text.begin(), text.end(), whole.tokens.begin()))
          << "penalty " << penalty << (by_callback ? ", ended by the callback" : "");
      options.max_tokens = 30;
    }
  }
}

TEST_F(GenerateOnGpu, MakesNothingWhenNothingIsWanted) {
  const Pair models = pair(testing::tiny_model_config());
  const Prompt prompt{some_tokens(20, 4)};
  EXPECT_TRUE(generate(*models.gpu, {&prompt, 1}, {.max_tokens = 0})[0].tokens.empty());
  EXPECT_EQ(generate(*models.gpu, {&prompt, 1}, {.max_tokens = 1})[0].tokens.size(), 1u);
  EXPECT_TRUE(generate(*models.gpu, {}, {}).empty());
}

/// What one graph cannot do goes layer by layer.
TEST_F(GenerateOnGpu, OtherModelsGenerateToo) {
  const at::NoGradGuard no_grad;
  models::ModelConfig hybrid = testing::tiny_model_config();
  hybrid.attn = models::AttentionConfig{.layers = {1}, .num_heads = 2, .num_kv_heads = 1, .window_size = {}};
  const Prompt prompt{some_tokens(20, 4)};
  const GenerateOptions options{.max_tokens = 8, .sampling = {.temperature = 0}};
  const Pair models = pair(hybrid);
  EXPECT_THAT(gpu_refusal(*models.gpu, options), ::testing::HasSubstr("layer 1"));
  EXPECT_EQ(generate(*models.gpu, {&prompt, 1}, options)[0].tokens.size(), 8u);

  const Pair wide = pair(testing::tiny_model_config());
  wide.gpu->to(at::kFloat);
  EXPECT_THAT(gpu_refusal(*wide.gpu, options), ::testing::HasSubstr("bf16"));
  const auto expected = generate(*wide.cpu, {&prompt, 1}, options)[0].tokens;
  EXPECT_EQ(generate(*wide.gpu, {&prompt, 1}, options)[0].tokens, expected);
}

}  // namespace
}  // namespace comba::generation
