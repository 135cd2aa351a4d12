#include "training/run_directory.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "base/file.h"
#include "comba/error.h"
#include "support/temporary_directory.h"
#include "training/metrics_log.h"

namespace comba::training {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

void touch(const fs::path& path) {
  fs::create_directories(path.parent_path());
  std::ofstream(path) << "x";
}

class RunDirectory : public ::testing::Test {
 protected:
  void add_checkpoints(std::initializer_list<std::int64_t> steps) {
    for (const std::int64_t step : steps) touch(checkpoint_path(run_, step) / "config.json");
  }
  std::vector<std::int64_t> steps() const {
    std::vector<std::int64_t> steps;
    for (const CheckpointEntry& entry : list_checkpoints(run_)) steps.push_back(entry.step);
    return steps;
  }

  testing::TemporaryDirectory directory_;
  fs::path run_ = directory_.path() / "run";
};

TEST_F(RunDirectory, ListsCheckpointsByStepAndNothingElse) {
  add_checkpoints({1000000, 20, 300});
  touch(run_ / ".checkpoint-000400.17-0.partial" / "config.json");
  touch(run_ / "checkpoint-best" / "config.json");
  touch(run_ / "checkpoint-000500");
  EXPECT_THAT(steps(), ElementsAre(20, 300, 1000000));
  EXPECT_EQ(latest_checkpoint(run_)->step, 1000000);
}

TEST_F(RunDirectory, HasNoCheckpointsBeforeItExists) { EXPECT_FALSE(latest_checkpoint(run_).has_value()); }

TEST_F(RunDirectory, PrunesAllButTheNewestAndWhatWasHalfWritten) {
  add_checkpoints({20, 300, 4000});
  touch(run_ / ".checkpoint-000400.17-0.partial" / "config.json");
  touch(run_ / "notes.txt");
  prune_checkpoints(run_, 2);
  EXPECT_THAT(steps(), ElementsAre(300, 4000));
  EXPECT_FALSE(fs::exists(run_ / ".checkpoint-000400.17-0.partial"));
  EXPECT_TRUE(fs::exists(run_ / "notes.txt"));
}

TEST_F(RunDirectory, KeepsTheBestAndLinksIt) {
  add_checkpoints({20, 300, 4000, 50000});
  const std::map<std::int64_t, double> losses = {{20, 3.0}, {30, 1.0}, {300, 2.0}, {4000, 2.0}};
  ASSERT_EQ(best_checkpoint(run_, losses), 300) << "30 has no checkpoint, 4000 is no better";
  EXPECT_EQ(best_checkpoint(run_, {{30, 1.0}}), std::nullopt);
  prune_checkpoints(run_, 1, 20);
  prune_checkpoints(run_, 1, 20);
  EXPECT_THAT(steps(), ElementsAre(20, 50000));
  EXPECT_EQ(find_model_directory(run_ / "best"), run_ / "best");
  add_checkpoints({60000});
  prune_checkpoints(run_, 1, 50000);
  EXPECT_THAT(steps(), ElementsAre(50000, 60000));
  EXPECT_EQ(fs::read_symlink(run_ / "best"), "checkpoint-050000");
}

TEST_F(RunDirectory, ANewRunTakesOnlyANewOrEmptyDirectory) {
  prepare_run_directory(run_, /*resume=*/false);
  prepare_run_directory(run_, /*resume=*/false);
  add_checkpoints({20});
  try {
    prepare_run_directory(run_, /*resume=*/false);
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::invalid_argument);
    EXPECT_THAT(error.what(), HasSubstr("a run of 20 steps (continue it with --resume)"));
  }
}

TEST_F(RunDirectory, OnlyARunIsResumed) {
  EXPECT_THROW(prepare_run_directory(run_, /*resume=*/true), Error);
  touch(metrics_path(run_));
  EXPECT_NO_THROW(prepare_run_directory(run_, /*resume=*/true));
}

TEST_F(RunDirectory, AFileIsNoDirectory) {
  touch(run_);
  EXPECT_THROW(prepare_run_directory(run_, /*resume=*/false), Error);
  EXPECT_THROW(prepare_run_directory(run_ / "below", /*resume=*/false), Error);
}

TEST_F(RunDirectory, ModelDirectoryIsTheOneGivenOrTheNewestCheckpoint) {
  EXPECT_THROW(find_model_directory(run_), Error);
  add_checkpoints({20, 300});
  EXPECT_EQ(find_model_directory(run_), checkpoint_path(run_, 300));
  EXPECT_EQ(find_model_directory(checkpoint_path(run_, 20)), checkpoint_path(run_, 20));
}

TEST_F(RunDirectory, MetricsOfStepsToBeMadeAgainAreDropped) {
  const fs::path path = directory_.path() / "metrics.jsonl";
  {
    MetricsLog log(path, 0);
    for (std::int64_t step = 1; step <= 5; ++step) log.write(StepReport{.step = step, .loss = 0.5});
    log.write(3, evaluation::EvaluationResult{.nats = 1, .tokens = 1, .bytes = 1, .documents = 1});
  }
  std::ofstream(path, std::ios::app) << R"({"step": 2, "lo)";  // a crash
  MetricsLog(path, 3).write(StepReport{.step = 4});
  const std::string text = read_file(path);
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 3 + 1 + 1);
  EXPECT_THAT(text, HasSubstr("\"step\":3,\"heldout_bits_per_byte\":1.44"));
  EXPECT_THAT(text, Not(HasSubstr("\"step\":5")));
}

}  // namespace
}  // namespace comba::training
