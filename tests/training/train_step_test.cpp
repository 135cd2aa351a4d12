#include "training/train_step.h"

#include <gtest/gtest.h>
#include <torch/utils.h>

#include <cmath>
#include <memory>

#include "models/training_flops.h"
#include "support/tiny_run.h"
#include "training/optimizer_state.h"

namespace comba::training {
namespace {

const TrainConfig kConfig = {.batch_size = 2, .context_length = 40, .dtype = "bf16"};

std::shared_ptr<models::CausalLM> tiny_model() {
  auto model = std::make_shared<models::CausalLM>(testing::tiny_model_config());
  model->initialize(3);
  return model;
}

MicroBatch random_batch(int seed) {
  torch::manual_seed(seed);
  const at::Tensor ids = at::randint(264, {2, 40}, at::kLong);
  return {.batch = {ids, ids.roll(-1, 1)}, .num_labels = ids.numel()};
}

/// Rounding the linear maps once, before the passes, is rounding them at each use.
TEST(TrainStep, GradientsInBf16AreThoseOfWeightsRoundedAtEachUse) {
  for (const bool recompute : {false, true}) {
    const auto model = tiny_model(), plain = tiny_model();
    TrainConfig config = kConfig;
    config.max_gradient_norm = 1e9;
    config.recompute_blocks = recompute;
    TrainStep step(model, config);
    const MicroBatch batch = random_batch(1);
    step.accumulate(batch, 1.0);
    const at::Tensor loss = plain->loss(batch.batch.input_ids, batch.batch.labels, {},
                                        {.compute_dtype = at::kBFloat16, .recompute_blocks = recompute});
    loss.backward();
    step.update(0.0);
    EXPECT_EQ(step.take_result().loss, loss.item<double>());
    const models::NamedTensors state = gather_state(step.parameters(), step.optimizer());
    for (const auto& item : plain->named_parameters()) {
      // The first moment begins as a tenth of the gradient.
      const at::Tensor expected = at::zeros_like(item.value()).lerp(item.value().grad(), 1 - kConfig.beta1);
      const at::Tensor moment = state.at("exp_avg." + item.key());
      EXPECT_LE((moment - expected).abs().max().item<float>(), 1e-6f * expected.abs().max().item<float>())
          << item.key();
    }
  }
}

TEST(TrainStep, ClipsToTheGlobalNorm) {
  TrainConfig loose = kConfig, tight = kConfig;
  loose.max_gradient_norm = 1e9;
  tight.max_gradient_norm = 0.01;
  TrainStep a(tiny_model(), loose), b(tiny_model(), tight);
  for (TrainStep* step : {&a, &b}) {
    step->accumulate(random_batch(1), 1.0);
    step->update(1e-3);
  }
  const StepResult result_a = a.take_result(), result_b = b.take_result();
  EXPECT_EQ(result_a.gradient_norm, result_b.gradient_norm);
  const double expected = 0.01 / result_a.gradient_norm;
  const at::Tensor moment_a = a.optimizer().exp_avg(), moment_b = b.optimizer().exp_avg();
  EXPECT_NEAR(moment_b.norm().item<double>() / moment_a.norm().item<double>(), expected, 1e-5 * expected);
}

TEST(TrainStep, ChangesNothingFromAStepThatIsNotFiniteUntilItIsTold) {
  const auto model = tiny_model();
  TrainStep step(model, kConfig);
  const at::Tensor norm = model->named_parameters()["model.norm.weight"];
  const at::Tensor embeddings = model->named_parameters()["model.embeddings.weight"].detach().clone();
  const auto make_step = [&](float scale) {
    norm.detach().fill_(scale);
    step.accumulate(random_batch(1), 1.0);
    step.update(0.1);
  };
  make_step(NAN);
  make_step(1);  // started before anybody has looked
  EXPECT_EQ(step.num_results(), 2);
  EXPECT_FALSE(step.take_result().finite);
  EXPECT_EQ(step.num_results(), 0);
  EXPECT_TRUE(at::equal(model->named_parameters()["model.embeddings.weight"], embeddings));
  EXPECT_EQ(step.optimizer().num_steps().item<float>(), 0.0f);
  make_step(1);
  EXPECT_TRUE(step.take_result().finite);
  EXPECT_FALSE(at::equal(model->named_parameters()["model.embeddings.weight"], embeddings));
}

TEST(TrainingFlops, CountsWeightsAndMixers) {
  models::ModelConfig config = testing::tiny_model_config();  // D 32, 2 layers, H 2, HV 4, K 16, V 16, MLP 48
  const double key = 2 * 16, value = 4 * 16;
  const double layer = 32 * (2 * key + value + 4 + 4 + value) + value * 32 + 3 * 32 * 48;
  const models::TrainingFlops flops = models::training_flops_per_token(config, 2048);
  EXPECT_DOUBLE_EQ(flops.linear, 6 * (2 * layer + 264 * 32));
  EXPECT_DOUBLE_EQ(flops.mixer, 2 * 4 * (20.0 * 16 * 16 + 14 * 64 * (16 + 16)));
}

}  // namespace
}  // namespace comba::training
