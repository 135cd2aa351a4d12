#include "training/learning_rate.h"

#include <gtest/gtest.h>

namespace comba::training {
namespace {

TrainConfig schedule(std::int64_t steps, std::int64_t warmup_steps) {
  TrainConfig config;
  config.steps = steps;
  config.warmup_steps = warmup_steps;
  config.learning_rate = 2.0;
  config.final_learning_rate = 0.1;
  return config;
}

TEST(LearningRate, WarmsUpLinearlyFromTheFirstStep) {
  const TrainConfig config = schedule(100, 4);
  EXPECT_DOUBLE_EQ(learning_rate(config, 0), 0.5);
  EXPECT_DOUBLE_EQ(learning_rate(config, 1), 1.0);
  EXPECT_DOUBLE_EQ(learning_rate(config, 3), 2.0);
  EXPECT_LT(learning_rate(config, 4), 2.0);
}

TEST(LearningRate, FollowsACosineToItsFinalFraction) {
  const TrainConfig config = schedule(104, 4);
  // Half of the 100 steps of decay: midway between peak and end. A quarter: cos(pi / 4) = sqrt(1/2).
  EXPECT_NEAR(learning_rate(config, 4 + 49), 2.0 * 0.55, 1e-12);
  EXPECT_NEAR(learning_rate(config, 4 + 24), 2.0 * (0.1 + 0.9 * (1 + 0.70710678118654752) / 2), 1e-12);
  EXPECT_NEAR(learning_rate(config, 103), 0.2, 1e-12);
}

TEST(LearningRate, NeverRisesAfterTheWarmUp) {
  const TrainConfig config = schedule(57, 10);
  for (std::int64_t step = 10; step < config.steps; ++step) {
    EXPECT_LT(learning_rate(config, step), learning_rate(config, step - 1)) << "step " << step;
  }
}

TEST(LearningRate, IsDefinedWhenTheWarmUpFillsTheRun) {
  const TrainConfig config = schedule(10, 10);
  EXPECT_DOUBLE_EQ(learning_rate(config, 9), 2.0);
}

TEST(LearningRate, NeedsNoWarmUp) {
  const TrainConfig config = schedule(1, 0);
  EXPECT_NEAR(learning_rate(config, 0), 0.2, 1e-12);
}

}  // namespace
}  // namespace comba::training
