#include "training/mixture.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <csignal>
#include <functional>
#include <limits>
#include <set>
#include <vector>

#include "base/file.h"
#include "comba/error.h"
#include "support/tiny_run.h"
#include "training/batch.h"
#include "training/permutation.h"
#include "training/run_directory.h"
#include "training/train.h"

namespace comba::training {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
constexpr std::int64_t kContext = 16, kBlock = MixtureSampler::kBlock;

/// Two data sets of one tokenizer, by names that errors must tell.
class Mixtures : public ::testing::Test {
 protected:
  Mixture mixture(double large, double small) const {
    return Mixture({{.dataset = &large_, .weight = large, .name = "large.data"},
                    {.dataset = &small_, .weight = small, .name = "small.data"}});
  }

  static std::string error_of(const std::function<void()>& action) {
    try {
      action();
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::invalid_argument) << error.what();
      return error.what();
    }
    return "no error";
  }

  const testing::TinyDataset data_;
  const data::TokenDataset large_ = data_.open(data::Split::train), small_ = data_.open(data::Split::heldout);
};

TEST_F(Mixtures, SharesAreExactInTheLongRunAndInEachBlock) {
  const std::vector<std::vector<double>> cases = {
      {3, 1}, {0.8, 0.2}, {1, 1, 1}, {1e-4, 1}, {1, 1e-4}, {5, 1e-3, 2, 1e-3}, {1e300, 1e300, 1e-300}, {7, 3, 1, 2}};
  for (const std::vector<double>& weights : cases) {
    std::vector<MixturePart> parts;
    for (const double weight : weights) parts.push_back({.dataset = &large_, .weight = weight});
    const Mixture mixture(parts);
    const MixtureSampler sampler(mixture, kContext, 7);
    std::vector<std::int64_t> counts(weights.size());
    for (std::int64_t block = 0; block < 30; ++block) {
      const std::vector<std::int64_t> before = counts;
      for (std::int64_t i = block * kBlock; i < (block + 1) * kBlock; ++i) ++counts[sampler.window(i).part];
      for (std::size_t part = 0; part < weights.size(); ++part) {
        const double exact = mixture.share(part) * kBlock, most_off = 0.5 * static_cast<double>(part + 1);
        EXPECT_LE(std::abs(static_cast<double>(counts[part] - before[part]) - exact), 2 * most_off)
            << "part " << part << " in block " << block;
        EXPECT_LE(std::abs(static_cast<double>(counts[part]) - exact * static_cast<double>(block + 1)), most_off)
            << "part " << part << " up to block " << block;
      }
    }
  }
}

TEST_F(Mixtures, SharesAreOfTheSumOfWeights) {
  EXPECT_DOUBLE_EQ(mixture(3, 1).share(0), 0.75);
  EXPECT_DOUBLE_EQ(mixture(1e308, 1e308).share(1), 0.5);
}

TEST_F(Mixtures, ThePartsAreSpreadOverABlock) {
  const MixtureSampler sampler(mixture(1, 1), kContext, 7);
  int changes = 0;
  for (std::int64_t i = 1; i < kBlock; ++i) changes += sampler.window(i).part != sampler.window(i - 1).part;
  // Half of them, with a standard deviation of 16.
  EXPECT_NEAR(changes, kBlock / 2, 100);
}

TEST_F(Mixtures, EachPartHasItsOwnEpochs) {
  const MixtureSampler sampler(mixture(3, 1), kContext, 7);
  const WindowSampler own[] = {{large_.num_tokens(), kContext, 7}, {small_.num_tokens(), kContext, mix_bits(1) ^ 7}};
  std::multiset<std::int64_t> read[2], expected[2];
  for (std::int64_t i = 0; i < 8 * kBlock; ++i) {
    const auto [part, start] = sampler.window(i);
    expected[part].insert(own[part].window_start(static_cast<std::int64_t>(read[part].size())));
    read[part].insert(start);
    if (i % kBlock != kBlock - 1) continue;
    EXPECT_EQ(read[0], expected[0]) << "after window " << i;
    EXPECT_EQ(read[1], expected[1]) << "after window " << i;
  }
  // Both were read several times over, the small one more often: shuffled anew each time, see WindowSampler.
  EXPECT_GT(static_cast<std::int64_t>(read[0].size()), 2 * own[0].windows_per_epoch());
  EXPECT_GT(static_cast<std::int64_t>(read[1].size()), 4 * own[1].windows_per_epoch());
}

TEST_F(Mixtures, TheOrderDependsOnTheSeedAlone) {
  const MixtureSampler sampler(mixture(1, 1), kContext, 7), same(mixture(1, 1), kContext, 7),
      other(mixture(1, 1), kContext, 8);
  int same_as_other_seed = 0, same_as_next_block = 0;
  for (std::int64_t i = 0; i < kBlock; ++i) {
    const auto [part, start] = sampler.window(i);
    EXPECT_EQ(part, same.window(i).part);
    EXPECT_EQ(start, same.window(i).start);
    same_as_other_seed += part == other.window(i).part;
    same_as_next_block += part == sampler.window(i + kBlock).part;
  }
  EXPECT_NEAR(same_as_other_seed, kBlock / 2, 100);
  EXPECT_NEAR(same_as_next_block, kBlock / 2, 100);
}

TEST_F(Mixtures, ABatchDoesNotDependOnHowItIsSplit) {
  const Mixture both = mixture(1, 1);
  const MixtureSampler sampler(both, kContext, 2);
  const Batch whole = read_batch(both, sampler, kBlock - 3, 6);
  const Batch first = read_batch(both, sampler, kBlock - 3, 4), second = read_batch(both, sampler, kBlock + 1, 2);
  EXPECT_TRUE(at::equal(whole.input_ids, at::cat({first.input_ids, second.input_ids})));
  EXPECT_TRUE(at::equal(whole.labels, at::cat({first.labels, second.labels})));
  std::vector<std::int64_t> tokens(kContext + 1);
  const auto [part, start] = sampler.window(kBlock);
  ASSERT_LE(start + kContext + 1, both.parts()[part].dataset->num_tokens());
  both.parts()[part].dataset->read_tokens(start, tokens);
  EXPECT_TRUE(at::equal(whole.input_ids[3], at::tensor(tokens).slice(0, 0, kContext)));
}

TEST_F(Mixtures, OnePartIsReadAsItIsAlone) {
  const WindowSampler alone(large_.num_tokens(), kContext, 7);
  const MixtureSampler mixed(large_, kContext, 7);
  for (std::int64_t i = 0; i < 500; ++i) ASSERT_EQ(mixed.window(i).start, alone.window_start(i));
  EXPECT_EQ(Mixture(large_).source_md5(), large_.source_md5());
}

struct Silent : TrainObserver {
  void on_start(const models::CausalLM&, std::int64_t) override {}
  void on_step(const StepReport& report) override {
    losses.push_back(report.loss);
    if (stop != nullptr && report.step == 5) stop->request(SIGTERM);
  }
  void on_evaluation(std::int64_t, const evaluation::EvaluationResult&) override {}
  void on_sample(std::int64_t, const std::string&) override {}
  void on_checkpoint(const std::filesystem::path&) override {}
  void on_trace(const std::filesystem::path&) override {}
  void on_warning(const std::string& text) override { ADD_FAILURE() << text; }

  std::vector<double> losses;
  StopFlag* stop = nullptr;
};

TEST_F(Mixtures, AResumedRunIsTheUninterruptedRunBitForBit) {
  const testing::TemporaryDirectory directory;
  const auto run = [&](const char* name, double weight, bool resume) {
    return TrainingRun{
        .model = testing::tiny_model_config(),
        .config = {.steps = 9, .batch_size = 2, .context_length = 40, .learning_rate = 0.01, .warmup_steps = 3},
        .train = mixture(1, weight),
        .heldout = small_,
        .directory = directory.path() / name,
        .resume = resume};
  };
  const StopFlag no_stop;
  StopFlag stop;
  Silent straight, first, second, never;
  train(run("straight", 1, false), straight, no_stop);
  first.stop = &stop;
  EXPECT_THROW(train(run("resumed", 1, false), first, stop), Error);
  EXPECT_THAT(error_of([&] { train(run("resumed", 2, true), never, no_stop); }), HasSubstr("its own data"))
      << "other weights are another run";
  train(run("resumed", 1, true), second, no_stop);
  first.losses.insert(first.losses.end(), second.losses.begin(), second.losses.end());
  EXPECT_EQ(first.losses, straight.losses);
  for (const char* file : {"model.safetensors", "optimizer.safetensors", "training.json"}) {
    EXPECT_TRUE(read_file(checkpoint_path(directory.path() / "straight", 9) / file) ==
                read_file(checkpoint_path(directory.path() / "resumed", 9) / file))
        << file;
  }
}

TEST_F(Mixtures, WhatMakesNoSenseIsNamed) {
  EXPECT_THAT(error_of([] { Mixture(std::vector<MixturePart>()); }), HasSubstr("got none"));
  for (const double weight : {0.0, -1.5, std::numeric_limits<double>::infinity(), std::nan("")}) {
    const std::string error = error_of([&] { mixture(1, weight); });
    EXPECT_THAT(error, AllOf(HasSubstr("positive and finite"), HasSubstr("small.data")));
  }
  EXPECT_THAT(error_of([&] { mixture(1, -1.5); }), HasSubstr("got -1.5"));
  EXPECT_THAT(error_of([&] { MixtureSampler(mixture(1, 1), small_.num_tokens(), 1); }),
              AllOf(HasSubstr("more tokens than context_length"), HasSubstr("small.data"),
                    HasSubstr(std::to_string(small_.num_tokens()))));
}

TEST_F(Mixtures, AnotherTokenizerIsNamed) {
  const testing::TemporaryDirectory directory;
  std::filesystem::create_directories(directory.path() / "texts");
  write_file_atomically(directory.path() / "texts" / "a", testing::tiny_text(50, 1));
  const auto model = std::filesystem::path(COMBA_SOURCE_DIR) / "tests/data/fixtures/bpe.model";
  data::pack({.inputs = {directory.path() / "texts"},
              .output = directory.path() / "packed",
              .tokenizer = data::Tokenizer::from_sentencepiece(model),
              .holdout = data::Holdout::tail});
  const auto other = data::TokenDataset::open(directory.path() / "packed", data::Split::train);
  const std::string error = error_of([&] {
    Mixture({{.dataset = &large_, .weight = 1, .name = "large.data"},
             {.dataset = &other, .weight = 1, .name = "other.data"}});
  });
  EXPECT_THAT(error, AllOf(HasSubstr("one tokenizer"), HasSubstr("bytes (large.data)"), HasSubstr("other.data")));
}

}  // namespace
}  // namespace comba::training
