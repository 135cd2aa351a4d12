#include "training/window_sampler.h"

#include <gtest/gtest.h>

#include <memory>
#include <set>
#include <vector>

#include "comba/error.h"
#include "support/tiny_run.h"
#include "training/batch.h"
#include "training/permutation.h"
#include "training/trainer.h"

namespace comba::training {
namespace {

TEST(Permutation, VisitsEachIndexOnceForEverySize) {
  for (std::int64_t size = 1; size <= 300; ++size) {
    const Permutation permutation(size, 5);
    std::set<std::int64_t> seen;
    for (std::int64_t i = 0; i < size; ++i) seen.insert(permutation(i));
    ASSERT_EQ(static_cast<std::int64_t>(seen.size()), size);
    ASSERT_EQ(*seen.begin(), 0);
    ASSERT_EQ(*seen.rbegin(), size - 1);
  }
}

TEST(Permutation, MixesAndDependsOnTheSeed) {
  constexpr std::int64_t kSize = 1000;
  int neighbours = 0, equal = 0;
  const Permutation a(kSize, 1), b(kSize, 2);
  for (std::int64_t i = 0; i + 1 < kSize; ++i) {
    neighbours += a(i + 1) == a(i) + 1;
    equal += a(i) == b(i);
  }
  // Both are about 1 for a random permutation; 10 would be a chance of 1e-7.
  EXPECT_LT(neighbours, 10);
  EXPECT_LT(equal, 10);
}

TEST(WindowSampler, ReadsTheWholeStreamOnceAnEpoch) {
  constexpr std::int64_t kTokens = 103, kContext = 10;
  const WindowSampler sampler(kTokens, kContext, 3);
  ASSERT_EQ(sampler.windows_per_epoch(), 10);
  for (std::int64_t epoch = 0; epoch < 3; ++epoch) {
    std::vector<int> reads(kTokens, 0);
    for (std::int64_t i = 0; i < 10; ++i) {
      const std::int64_t start = sampler.window_start(epoch * 10 + i);
      for (std::int64_t t = 0; t < kContext; ++t) ++reads[static_cast<std::size_t>((start + t) % kTokens)];
    }
    EXPECT_EQ(std::count(reads.begin(), reads.end(), 1), 100) << "epoch " << epoch;
    EXPECT_EQ(std::count(reads.begin(), reads.end(), 0), 3) << "epoch " << epoch;
  }
}

TEST(WindowSampler, OrderDependsOnEpochAndSeed) {
  const WindowSampler sampler(100000, 10, 3), same(100000, 10, 3), other(100000, 10, 4);
  int same_as_next_epoch = 0, same_as_other_seed = 0;
  for (std::int64_t i = 0; i < 100; ++i) {
    EXPECT_EQ(sampler.window_start(i), same.window_start(i));
    same_as_next_epoch += sampler.window_start(i) == sampler.window_start(i + sampler.windows_per_epoch());
    same_as_other_seed += sampler.window_start(i) == other.window_start(i);
  }
  EXPECT_LT(same_as_next_epoch, 5);
  EXPECT_LT(same_as_other_seed, 5);
}

TEST(WindowSampler, RefusesAStreamShorterThanAWindow) {
  EXPECT_NO_THROW(WindowSampler(11, 10, 0));
  EXPECT_THROW(WindowSampler(10, 10, 0), Error);
}

TEST(Batch, LabelsAreTheSuccessorsAcrossTheEndOfTheStream) {
  const testing::TinyDataset data;
  const auto dataset = data.open(data::Split::train);
  std::vector<std::int64_t> stream(static_cast<std::size_t>(dataset.num_tokens()));
  dataset.read_tokens(0, stream);
  constexpr std::int64_t kContext = 64;
  const WindowSampler sampler(dataset.num_tokens(), kContext, 11);
  const MixtureSampler mixed(dataset, kContext, 11);
  const std::int64_t windows = sampler.windows_per_epoch();
  const Batch batch = read_batch(dataset, mixed, 0, windows);
  bool wrapped = false;
  for (std::int64_t b = 0; b < windows; ++b) {
    for (std::int64_t t = 0; t < kContext; ++t) {
      const auto position = static_cast<std::size_t>(sampler.window_start(b) + t);
      wrapped |= position + 1 >= stream.size();
      ASSERT_EQ(batch.input_ids[b][t].item<std::int64_t>(), stream[position % stream.size()]);
      ASSERT_EQ(batch.labels[b][t].item<std::int64_t>(), stream[(position + 1) % stream.size()]);
    }
  }
  EXPECT_TRUE(wrapped) << "no window crosses the end: the test does not see what it is for";
}

TEST(Batch, DoesNotDependOnHowItIsSplit) {
  const testing::TinyDataset data;
  const auto dataset = data.open(data::Split::train);
  const WindowSampler sampler(dataset.num_tokens(), 16, 2);
  const MixtureSampler mixed(dataset, 16, 2);
  const Batch whole = read_batch(dataset, mixed, 40, 6);
  const Batch first = read_batch(dataset, mixed, 40, 4), second = read_batch(dataset, mixed, 44, 2);
  EXPECT_TRUE(at::equal(whole.input_ids, at::cat({first.input_ids, second.input_ids})));
  EXPECT_TRUE(at::equal(whole.labels, at::cat({first.labels, second.labels})));
}

TEST(Batch, PromptsHaveNoLabels) {
  const testing::MaskedDataset data;
  const auto dataset = data.open();
  std::vector<std::int64_t> stream(static_cast<std::size_t>(dataset.num_tokens())), labels(stream.size());
  dataset.read_tokens(0, stream);
  dataset.read_labels(0, labels);
  const WindowSampler sampler(dataset.num_tokens(), 32, 5);
  const MixtureSampler mixed(dataset, 32, 5);
  const std::int64_t windows = sampler.windows_per_epoch();
  const Batch batch = read_batch(dataset, mixed, 0, windows);
  std::int64_t learned = 0;
  for (std::int64_t b = 0; b < windows; ++b) {
    for (std::int64_t t = 0; t < 32; ++t) {
      const auto position = static_cast<std::size_t>(sampler.window_start(b) + t);
      ASSERT_EQ(batch.input_ids[b][t].item<std::int64_t>(), stream[position % stream.size()]);
      const std::int64_t label = batch.labels[b][t].item<std::int64_t>();
      ASSERT_EQ(label, labels[(position + 1) % labels.size()]);
      learned += label != data::kIgnoredLabel;
    }
  }
  EXPECT_GT(learned, 0);
  EXPECT_LT(learned, windows * 32 / 2) << "most of this text is prompts";
}

// The prompts' shares of the micro batches differ, and one may hold nothing else.
TEST(Batch, EveryLabelCountsAlikeWhateverTheMicroBatch) {
  const testing::MaskedDataset data;
  const auto dataset = data.open();
  TrainConfig config = {
      .steps = 20, .batch_size = 8, .context_length = 8, .learning_rate = 0.01, .warmup_steps = 5, .seed = 3};
  const auto losses = [&](std::int64_t micro_batch_size) {
    config.micro_batch_size = micro_batch_size;
    auto model = std::make_shared<models::CausalLM>(testing::tiny_model_config());
    model->initialize(3);
    Trainer trainer(model, dataset, config);
    std::vector<double> losses;
    for (int i = 0; i < 6; ++i) losses.push_back(trainer.step().loss);
    return losses;
  };
  const std::vector<double> whole = losses(8), parts = losses(1);
  for (std::size_t i = 0; i < whole.size(); ++i) EXPECT_NEAR(parts[i], whole[i], 1e-4 * whole[i]) << "step " << i;
}

}  // namespace
}  // namespace comba::training
