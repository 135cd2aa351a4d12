#include "tasks/task_trainer.h"

#include <gmock/gmock.h>

#include <cmath>
#include <numbers>

#include "base/file.h"
#include "support/temporary_directory.h"
#include "tasks/mixer_spec.h"

namespace comba::tasks {
namespace {

using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

/// Remembers what it is told, and may ask to stop after some epochs.
class Witness : public TaskObserver {
 public:
  void on_start(std::int64_t, std::int64_t, const TaskProgress& progress, std::int64_t) override {
    first_step = progress.step;
  }
  void on_loss(const TaskProgress&, double) override {}
  void on_epoch(const TaskProgress& progress) override {
    if (std::ssize(progress.epochs) == stop_after) stop.request(15);
  }

  std::int64_t first_step = -1;
  std::int64_t stop_after = 0;
  StopFlag stop;
};

const TaskData& parity() {
  static const TaskData data = make_data({.name = "parity",
                                          .task = "parity",
                                          .vocab = 2,
                                          .train = {{6, 0, 70}, {9, 0, 30}},
                                          .test = {{6, 0, 20}, {12, 0, 40}}});
  return data;
}

class TaskTrainerTest : public ::testing::Test {
 protected:
  TaskRun run(std::int64_t epochs, double stop_accuracy = 1) {
    return {.model = mixer_config("gated_deltanet", {.vocab = 2, .hidden_size = 16}),
            .data = parity(),
            .batch_size = 20,
            .test_batch_size = 15,
            .training = {.epochs = epochs, .learning_rate = 1e-2, .stop_accuracy = stop_accuracy},
            .checkpoint = directory_.path() / "checkpoint"};
  }
  TaskResult train(const TaskRun& task) { return train_task(task, witness_, witness_.stop); }

  comba::testing::TemporaryDirectory directory_;
  Witness witness_;
};

void expect_same(const TaskProgress& a, const TaskProgress& b) {
  ASSERT_EQ(a.epochs.size(), b.epochs.size());
  for (std::size_t i = 0; i < a.epochs.size(); ++i) {
    EXPECT_EQ(a.epochs[i].loss, b.epochs[i].loss) << i;
    EXPECT_EQ(a.epochs[i].accuracy, b.epochs[i].accuracy) << i;
  }
  EXPECT_EQ(a.step, b.step);
}

TEST_F(TaskTrainerTest, LearnsByTheDocumentedRates) {
  const TaskResult result = train(run(4));
  ASSERT_EQ(result.progress.epochs.size(), 4u);
  EXPECT_EQ(result.progress.step, 4 * (4 + 2));  // batches of 20, 20, 20, 10, and 20, 10: unmixed
  for (int e = 0; e < 4; ++e) {
    const double rate = 1e-2 * (1 + std::cos(std::numbers::pi * e / 4)) / 2;
    EXPECT_DOUBLE_EQ(result.progress.epochs[static_cast<std::size_t>(e)].learning_rate, rate);
  }
  EXPECT_LT(result.progress.epochs.back().loss, result.progress.epochs.front().loss);
  ASSERT_EQ(result.progress.slices.size(), 2u);
  const auto& [first, second] = std::tie(result.progress.slices[0], result.progress.slices[1]);
  EXPECT_EQ(first.slice, 6);
  EXPECT_EQ(second.length, 12);
  EXPECT_DOUBLE_EQ(result.progress.epochs.back().accuracy, (20 * first.accuracy + 40 * second.accuracy) / 60);
}

TEST_F(TaskTrainerTest, EndsWhenItKnowsEnough) { EXPECT_EQ(train(run(4, 0.2)).progress.epochs.size(), 1u); }

TEST_F(TaskTrainerTest, GoesOnAsIfNothingHadHappened) {
  const TaskResult whole = train(run(3));
  witness_.stop_after = 1;
  EXPECT_THAT([&] { train(run(3)); }, ThrowsMessage<Interrupted>(HasSubstr("stopped after step 6")));
  Witness second;
  expect_same(train_task(run(3), second, second.stop).progress, whole.progress);
  EXPECT_EQ(second.first_step, 6);
}

// Asked before the first step, within an epoch: what was summed up of the epoch's loss counts, too.
TEST_F(TaskTrainerTest, StopsWithinAnEpoch) {
  const TaskResult whole = train(run(2));
  class StopAtLoss : public Witness {
    void on_loss(const TaskProgress&, double) override { stop.request(2); }
  } early;
  TaskRun task = run(2);
  task.batch_size = 2;  // 50 steps an epoch: the loss is told after 20
  EXPECT_THAT([&] { train_task(task, early, early.stop); }, ThrowsMessage<Interrupted>(HasSubstr("after step 20")));
  const TaskResult resumed = train(task);
  EXPECT_EQ(witness_.first_step, 20);
  std::filesystem::remove(task.checkpoint);
  expect_same(resumed.progress, train(task).progress);
  EXPECT_NE(resumed.progress.step, whole.progress.step);
}

TEST_F(TaskTrainerTest, EndsWhereTheLossDiverges) {
  TaskRun task = run(5);
  task.training.learning_rate = 1e30;
  const TaskResult result = train(task);
  EXPECT_TRUE(result.progress.diverged);
  EXPECT_LT(result.progress.epochs.size(), 5u);
}

TEST_F(TaskTrainerTest, RefusesAnotherCheckpoint) {
  write_file_atomically(directory_.path() / "checkpoint", "no safetensors");
  EXPECT_THROW(train(run(1)), Error);
  std::filesystem::remove(directory_.path() / "checkpoint");
  witness_.stop.request(15);
  EXPECT_THROW(train(run(1)), Interrupted);
  TaskRun wider = run(1);
  wider.model = mixer_config("gated_deltanet", {.vocab = 2, .hidden_size = 32});
  Witness other;
  EXPECT_THAT([&] { train_task(wider, other, other.stop); },
              ThrowsMessage<Error>(HasSubstr("the checkpoint must be of this model")));
}

}  // namespace
}  // namespace comba::tasks
