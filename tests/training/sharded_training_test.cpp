/// Training in a group of processes, here of threads, against training in one.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "comba/error.h"
#include "support/threads_together.h"
#include "support/tiny_run.h"
#include "training/flat_parameters.h"
#include "training/trainer.h"

namespace comba::training {
namespace {

TrainConfig tiny_config() {
  return {.steps = 20, .batch_size = 12, .context_length = 24, .learning_rate = 0.01, .warmup_steps = 5, .seed = 3};
}

std::shared_ptr<models::CausalLM> tiny_model(std::uint64_t seed) {
  auto model = std::make_shared<models::CausalLM>(testing::tiny_model_config());
  model->initialize(seed);
  return model;
}

/// What a few steps have made.
struct Result {
  std::vector<double> losses, norms;
  models::NamedTensors weights, optimizer;
};

Result train(const data::TokenDataset& dataset, const TrainConfig& config, int num_steps,
             distributed::ProcessGroup& group, const models::NamedTensors* optimizer = nullptr,
             const models::NamedTensors* weights = nullptr, int zero_stage = 1) {
  // Processes may start with other weights: those of the leading one count.
  Trainer trainer(tiny_model(3 + static_cast<std::uint64_t>(group.rank())), dataset, config, group,
                  {.zero_stage = zero_stage});
  if (weights != nullptr) {
    const at::NoGradGuard no_grad;
    for (const auto& item : trainer.model().named_parameters()) at::Tensor(item.value()).copy_(weights->at(item.key()));
    trainer.load_optimizer_state(*optimizer);
  }
  Result result;
  for (int i = 0; i < num_steps; ++i) {
    const StepReport report = trainer.step();
    result.losses.push_back(report.loss);
    result.norms.push_back(report.gradient_norm);
  }
  for (const auto& item : trainer.model().named_parameters())
    result.weights[item.key()] = item.value().detach().clone();
  for (const auto& [name, tensor] : trainer.optimizer_state()) result.optimizer[name] = tensor.clone();
  return result;
}

void expect_close(const models::NamedTensors& measured, const models::NamedTensors& expected, double tolerance) {
  ASSERT_EQ(measured.size(), expected.size());
  for (const auto& [name, tensor] : expected) {
    ASSERT_EQ(measured.at(name).sizes(), tensor.sizes()) << name;
    const at::Tensor wide = tensor.to(at::kDouble);
    const double error = (measured.at(name).to(at::kDouble) - wide).norm().item<double>();
    EXPECT_LE(error, tolerance * wide.norm().item<double>()) << name;
  }
}

void expect_same_bits(const models::NamedTensors& a, const models::NamedTensors& b) {
  ASSERT_EQ(a.size(), b.size());
  for (const auto& [name, tensor] : a) EXPECT_TRUE(at::equal(tensor, b.at(name))) << name;
}

class ShardedTraining : public ::testing::TestWithParam<int> {
 protected:
  void SetUp() override {
    if (!distributed::has_gloo()) GTEST_SKIP() << "this build has no Gloo";
  }

  /// The leading process's result; the others' weights must be the same.
  Result together(const TrainConfig& config, int num_steps, const Result* saved = nullptr, int zero_stage = 1) {
    std::vector<Result> results(static_cast<std::size_t>(size_));
    testing::run_group(size_, [&](distributed::ProcessGroup& group) {
      results[static_cast<std::size_t>(group.rank())] =
          train(train_, config, num_steps, group, saved ? &saved->optimizer : nullptr,
                saved ? &saved->weights : nullptr, zero_stage);
    });
    for (const Result& result : results) {
      EXPECT_EQ(result.losses, results[0].losses);
      expect_same_bits(result.weights, results[0].weights);
    }
    return results[0];
  }

  Result alone(const TrainConfig& config, int num_steps, const Result* saved = nullptr) {
    return train(train_, config, num_steps, distributed::single_process(), saved ? &saved->optimizer : nullptr,
                 saved ? &saved->weights : nullptr);
  }

  const int size_ = GetParam();
  const testing::TinyDataset data_;
  const data::TokenDataset train_ = data_.open(data::Split::train);
};

INSTANTIATE_TEST_SUITE_P(Sizes, ShardedTraining, ::testing::Values(2, 3, 4));

// A gradient is a sum of terms that cancel; another order of summing them changes it by some 1e-6 of its size, and Adam
// divides by its root mean square, so that a weight whose gradients are all rounding may go anywhere by the rate.
constexpr double kFirstStepTolerance = 1e-4;
constexpr double kTolerance = 3e-3;

TEST_P(ShardedTraining, AStepIsThatOfOneProcess) {
  for (const std::int64_t micro_batch_size : {0, 1, 2}) {
    TrainConfig config = tiny_config();
    config.micro_batch_size = micro_batch_size;
    const Result expected = alone(config, 1), measured = together(config, 1);
    EXPECT_NEAR(measured.losses[0], expected.losses[0], 1e-5);
    EXPECT_NEAR(measured.norms[0], expected.norms[0], 1e-5 * expected.norms[0]);
    expect_close(measured.weights, expected.weights, kFirstStepTolerance);
    expect_close(measured.optimizer, expected.optimizer, kFirstStepTolerance);
  }
}

TEST_P(ShardedTraining, SharedGradientsAreTheSameBitsWhereAStepIsOnePass) {
  for (const bool recompute : {false, true}) {
    TrainConfig config = tiny_config();
    config.dtype = "bf16";
    config.recompute_blocks = recompute;
    const Result whole = together(config, 3, nullptr, /*zero_stage=*/1), shared = together(config, 3, nullptr, 2);
    EXPECT_EQ(shared.losses, whole.losses);
    EXPECT_EQ(shared.norms, whole.norms);
    expect_same_bits(shared.weights, whole.weights);
    expect_same_bits(shared.optimizer, whole.optimizer);
  }
}

TEST_P(ShardedTraining, SharedAndWholeGradientsAddUpOverPasses) {
  TrainConfig config = tiny_config();
  config.micro_batch_size = 1;
  const Result expected = alone(config, 1);
  for (const int zero_stage : {0, 2}) {
    const Result measured = together(config, 1, nullptr, zero_stage);
    EXPECT_NEAR(measured.norms[0], expected.norms[0], 1e-5 * expected.norms[0]);
    expect_close(measured.weights, expected.weights, kFirstStepTolerance);
    expect_close(measured.optimizer, expected.optimizer, kFirstStepTolerance);
  }
}

TEST_P(ShardedTraining, ARunIsThatOfOneProcessAndRepeatsItsBits) {
  const Result expected = alone(tiny_config(), 12), measured = together(tiny_config(), 12);
  for (std::size_t i = 0; i < 12; ++i) EXPECT_NEAR(measured.losses[i], expected.losses[i], 1e-4) << i;
  expect_close(measured.weights, expected.weights, kTolerance);
  const Result again = together(tiny_config(), 12);
  EXPECT_EQ(again.losses, measured.losses);
  expect_same_bits(again.weights, measured.weights);
  expect_same_bits(again.optimizer, measured.optimizer);
}

/// The processes' shares of a step have more or fewer prompts, which are not learned.
TEST_P(ShardedTraining, EveryLabelCountsAlikeWhicheverProcessHasIt) {
  const testing::MaskedDataset masked;
  const data::TokenDataset dataset = masked.open();
  TrainConfig config = tiny_config();
  config.context_length = 8;
  const Result expected = train(dataset, config, 2, distributed::single_process());
  testing::run_group(size_, [&](distributed::ProcessGroup& group) {
    const Result measured = train(dataset, config, 2, group);
    EXPECT_NEAR(measured.losses[0], expected.losses[0], 1e-5);
    EXPECT_NEAR(measured.losses[1], expected.losses[1], 1e-4);
    EXPECT_NEAR(measured.norms[0], expected.norms[0], 1e-5 * expected.norms[0]);
  });
}

TEST_P(ShardedTraining, GoesOnFromAnyNumberOfProcesses) {
  const Result expected = alone(tiny_config(), 8);
  const Result half_alone = alone(tiny_config(), 4), half_together = together(tiny_config(), 4);
  expect_close(together(tiny_config(), 4, &half_alone).weights, expected.weights, kTolerance);
  expect_close(alone(tiny_config(), 4, &half_together).weights, expected.weights, kTolerance);
  const Result straight = together(tiny_config(), 8), resumed = together(tiny_config(), 4, &half_together);
  expect_same_bits(resumed.weights, straight.weights);
  expect_same_bits(resumed.optimizer, straight.optimizer);
}

TEST_P(ShardedTraining, EachProcessKeepsTheMomentsOfItsShareOnly) {
  testing::run_group(size_, [&](distributed::ProcessGroup& group) {
    const auto model = tiny_model(1);
    std::vector<NamedParameter> parameters;
    std::int64_t total = 0;
    for (const auto& item : model->named_parameters()) {
      parameters.push_back({item.key(), item.value()});
      total += item.value().numel();
    }
    const FlatParameters flat(parameters, group);
    EXPECT_LE(AdamW(flat.own(), {}).exp_avg().numel(), (total + size_ - 1) / size_);
  });
}

/// Whole numbers have one sum, whatever the order of summing.
TEST_P(ShardedTraining, EveryElementIsReducedUpdatedAndGatheredOnceInBucketsOfAnySize) {
  const std::vector<std::vector<std::int64_t>> shapes = {{3, 5}, {7}, {4, 4}, {1}, {2, 1, 3}, {6, 2}};
  for (const auto& [bucket_size, zero_stage] : std::vector<std::pair<std::int64_t, int>>{
           {0, 0}, {5, 0}, {16, 0}, {0, 1}, {1, 1}, {5, 1}, {16, 1}, {1000, 1}, {0, 2}, {5, 2}, {16, 2}}) {
    testing::run_group(size_, [&](distributed::ProcessGroup& group) {
      std::vector<NamedParameter> parameters;
      for (std::size_t i = 0; i < shapes.size(); ++i) {
        parameters.push_back({std::to_string(i), at::full(shapes[i], 100.0 * i).requires_grad_()});
      }
      FlatParameters flat(parameters, group, {.bucket_size = bucket_size, .zero_stage = zero_stage});
      // Two passes: autograd gives half of the gradients in each, in some order, and nothing to parameter 3 in the
      // first.
      for (const bool last : {false, true}) {
        flat.begin_pass(/*first=*/!last, last);
        at::Tensor loss = at::zeros({});
        for (std::size_t i = 0; i < shapes.size(); ++i) {
          if (i == 3 && !last) continue;
          const at::Tensor gradient =
              at::arange(parameters[i].tensor.numel(), at::kFloat).view(shapes[i]) + (group.rank() + 1) * (i + 1.0);
          loss = loss + (parameters[i].tensor * gradient).sum() * (i == 3 ? 1.0 : last ? 0.75 : 0.25);
        }
        loss.backward();
        flat.end_pass();
      }
      std::vector<at::Tensor> own;
      for (const FlatPiece& piece : flat.own()) {
        piece.value.add_(piece.gradient);
        own.push_back(piece.gradient);
      }
      flat.gather_values();
      const at::Tensor own_elements = own.empty() ? at::zeros({0}) : at::cat(own);
      const models::NamedTensors gradients = flat.gather("g", own_elements);
      const double ranks = size_ * (size_ + 1) / 2.0;
      for (std::size_t i = 0; i < shapes.size(); ++i) {
        const at::Tensor sum =
            at::arange(parameters[i].tensor.numel(), at::kFloat).view(shapes[i]) * size_ + ranks * (i + 1.0);
        EXPECT_TRUE(at::equal(parameters[i].tensor, sum + 100.0 * i)) << i << ", buckets of " << bucket_size;
        if (group.leads()) EXPECT_TRUE(at::equal(gradients.at("g" + std::to_string(i)), sum)) << i;
      }
      if (group.leads()) EXPECT_EQ(gradients.size(), shapes.size());
      // A whole state goes back to where it came from.
      models::NamedTensors whole;
      for (std::size_t i = 0; i < shapes.size(); ++i) {
        whole["g" + std::to_string(i)] =
            at::arange(parameters[i].tensor.numel(), at::kFloat).view(shapes[i]) * size_ + ranks * (i + 1.0);
      }
      const at::Tensor scattered = at::zeros_like(own_elements);
      flat.scatter("g", whole, scattered);
      EXPECT_TRUE(at::equal(scattered, own_elements));
    });
  }
}

TEST_P(ShardedTraining, RefusesAForeignState) {
  const Result saved = alone(tiny_config(), 1);
  testing::run_group(size_, [&](distributed::ProcessGroup& group) {
    Trainer trainer(tiny_model(1), train_, tiny_config(), group);
    models::NamedTensors state = saved.optimizer;
    state["exp_avg.model.norm.weight"] = at::zeros({5});
    EXPECT_THROW(trainer.load_optimizer_state(state), Error);
    state = saved.optimizer;
    state["exp_avg.q"] = at::zeros({5});
    EXPECT_THROW(trainer.load_optimizer_state(state), Error);
    EXPECT_THROW(trainer.load_optimizer_state({}), Error);
    EXPECT_NO_THROW(trainer.load_optimizer_state(saved.optimizer));
  });
}

TEST_P(ShardedTraining, RefusesABatchThatCannotBeShared) {
  TrainConfig config = tiny_config();
  config.batch_size = 5;
  testing::run_group(size_, [&](distributed::ProcessGroup& group) {
    try {
      Trainer(tiny_model(1), train_, config, group);
      ADD_FAILURE() << "no error";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::invalid_argument);
      EXPECT_THAT(error.what(), ::testing::HasSubstr("multiple of the number of processes"));
    }
  });
}

}  // namespace
}  // namespace comba::training
