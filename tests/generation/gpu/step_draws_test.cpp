#include "generation/gpu/gpu_fixture.h"

namespace comba::generation {
namespace {

class StepDraws : public OnGpu {};

/// What the GPU draws is what the host draws from the same logits.
TEST_F(StepDraws, AreThoseOfTheTokenSampler) {
  models::ModelConfig config = testing::tiny_model_config();
  config.vocab_size = 5000;
  const Pair models = pair(config);
  const at::NoGradGuard no_grad;
  models.gpu->named_parameters()["model.norm.weight"].mul_(0.1);  // several tokens are likely
  const std::vector<SamplingOptions> all = {
      {},
      {.temperature = 0},
      {.temperature = 0.2},
      {.top_k = 1},
      {.top_k = 50},
      {.top_k = 2000},
      {.top_p = 0.9},
      {.top_p = 1e-6},
      {.min_p = 0.05},
      {.min_p = 1},
      {.temperature = 2, .top_k = 200, .top_p = 0.7},
      {.temperature = 1.3, .top_p = 0.99, .min_p = 0.01},
      {.temperature = 0, .repetition_penalty = 1.5, .repetition_window = 4},
      {.temperature = 0.9, .top_p = 0.8, .repetition_penalty = 0.7, .repetition_window = 30},
      {.temperature = 1e-3, .repetition_penalty = 1.2, .repetition_window = 1024},
  };
  constexpr std::int64_t kDrawn = 4900;  // of 5000: the others are never drawn
  // Few texts are drawn by eight blocks each, more by two, many by one.
  for (const std::size_t texts : {all.size(), 4 * all.size(), 5 * all.size()}) {
    StepDecoder decoder(*models.gpu, static_cast<std::int64_t>(texts), kDrawn);
    std::vector<TokenSampler> samplers;
    std::vector<SlotTable::Row> rows;
    const auto tokens = some_tokens(12, 3);
    const auto state = read_text(*models.gpu, tokens).state;
    for (std::size_t i = 0; i < texts; ++i) {
      SamplingOptions options = all[i % all.size()];
      options.seed = 100 + i;
      TokenSampler& sampler = samplers.emplace_back(options);
      sampler.observe(tokens);
      rows.push_back(decoder.join(state, tokens.back(), options, 0, sampler.recent()));
    }
    int different = 0;
    for (int step = 0; step < 40; ++step) {
      decoder.launch();
      const auto drawn = decoder.read();
      for (std::size_t i = 0; i < texts; ++i) {
        const at::Tensor logits = decoder.next_logits(rows[i]);
        const std::int64_t expected = samplers[i].sample({logits.const_data_ptr<float>(), kDrawn});
        ASSERT_EQ(drawn[i].token, expected) << "options " << i << ", step " << step;
        different += expected != drawn[0].token;
      }
    }
    EXPECT_GT(different, 100);
  }
}

TEST_F(StepDraws, FollowTheSoftmax) {
  const Pair models = pair(testing::tiny_model_config());
  const at::NoGradGuard no_grad;
  models.gpu->named_parameters()["model.norm.weight"].mul_(0.05);
  constexpr std::int64_t kTexts = 500, kVocab = 20;
  StepDecoder decoder(*models.gpu, kTexts, kVocab);
  const auto state = read_text(*models.gpu, some_tokens(12, 3)).state;
  std::vector<SlotTable::Row> rows;
  for (std::int64_t i = 0; i < kTexts; ++i) {
    rows.push_back(decoder.join(state, 5, {.seed = static_cast<std::uint64_t>(i)}, 0, {}));
  }
  decoder.launch();
  const auto drawn = decoder.read();
  const at::Tensor logits = decoder.next_logits(rows[0]).narrow(0, 0, kVocab);
  EXPECT_TRUE(logits.equal(decoder.next_logits(rows[kTexts - 1]).narrow(0, 0, kVocab)));
  const at::Tensor expected = at::softmax(logits, 0).to(at::kDouble) * kTexts;
  std::vector<double> counts(kVocab, 0);
  for (const auto& one : drawn) counts.at(static_cast<std::size_t>(one.token)) += 1;
  for (std::int64_t id = 0; id < kVocab; ++id) {
    const double mean = expected[id].item<double>();
    EXPECT_NEAR(counts[static_cast<std::size_t>(id)], mean, 5 * std::sqrt(mean) + 1) << "token " << id;
  }
}

TEST_F(StepDraws, SayWhenALogitIsNan) {
  const Pair models = pair(testing::tiny_model_config());
  const auto state = read_text(*models.gpu, some_tokens(12, 3)).state;
  const at::NoGradGuard no_grad;
  models.gpu->named_parameters()["model.norm.weight"][3] = NAN;
  StepDecoder decoder(*models.gpu, 1, 264);
  decoder.join(state, 5, {}, 0, {});
  decoder.launch();
  EXPECT_THROW(decoder.read(), Error);
}

}  // namespace
}  // namespace comba::generation
