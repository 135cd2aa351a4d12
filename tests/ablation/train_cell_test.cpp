#include "ablation/train_cell.h"

#include <gmock/gmock.h>

#include "base/interrupted.h"
#include "support/temporary_directory.h"
#include "support/tiny_run.h"

namespace comba::ablation {
namespace {

/// May ask to stop after some steps.
class Witness : public CellObserver {
 public:
  void on_start(const CellRun&, std::int64_t, const CellProgress& progress) override { first_step = progress.step; }
  void on_step(std::int64_t step, double) override {
    if (step == stop_after) stop.request(15);
  }

  std::int64_t first_step = -1, stop_after = -1;
  StopFlag stop;
};

class TrainCell : public ::testing::Test {
 protected:
  TrainCell() {
    config_.steps = 20;
    config_.batch_size = 4;
    config_.context_length = 32;
    config_.learning_rate = 1e-2;
    config_.warmup_steps = 2;
    config_.evaluation_interval = 8;
  }

  CellResult train(Witness& witness) {
    const CellRun run{.model = model_,
                      .config = config_,
                      .train = mixture_,
                      .heldout = windows_,
                      .device = c10::kCPU,
                      .points = 5,
                      .directory = directory_.path() / "cell"};
    return train_cell(run, witness, witness.stop);
  }

  comba::testing::TinyDataset data_;
  comba::testing::TemporaryDirectory directory_;
  data::TokenDataset train_ = data_.open(data::Split::train), heldout_ = data_.open(data::Split::heldout);
  training::Mixture mixture_{train_};
  HeldoutText windows_{heldout_, train_, 32, {.windows = 4, .recall_length = 4}, c10::kCPU};
  models::ModelConfig model_ = comba::testing::tiny_model_config();
  training::TrainConfig config_;
};

std::vector<double> losses_of(const CellResult& result) {
  std::vector<double> losses;
  for (const CurvePoint& point : result.progress.curve) losses.push_back(point.loss);
  return losses;
}

TEST_F(TrainCell, LearnsAndLeavesNothingBehind) {
  Witness witness;
  const CellResult result = train(witness);
  const std::vector<CurvePoint>& curve = result.progress.curve;
  ASSERT_EQ(curve.size(), 5u);
  EXPECT_EQ(curve[0].step, 4);
  EXPECT_FALSE(curve[0].heldout_loss);
  EXPECT_TRUE(curve[1].heldout_loss);
  EXPECT_LT(result.final_loss(), curve[0].loss - 1);
  ASSERT_TRUE(result.progress.heldout);
  EXPECT_LT(result.progress.heldout->loss(), curve[0].loss);
  EXPECT_FALSE(result.progress.diverged);
  EXPECT_FALSE(std::filesystem::exists(directory_.path() / "cell"));
}

TEST_F(TrainCell, GoesOnWithTheSameBits) {
  Witness whole, first, second;
  const CellResult expected = train(whole);
  first.stop_after = 9;
  EXPECT_THROW(train(first), Interrupted);
  const CellResult result = train(second);
  EXPECT_EQ(second.first_step, 10);  // a step is begun before the flag is seen
  EXPECT_EQ(losses_of(result), losses_of(expected));
  EXPECT_EQ(result.progress.heldout->nats, expected.progress.heldout->nats);
}

TEST_F(TrainCell, ADivergedCellHasNoScore) {
  config_.learning_rate = 1e30;
  Witness witness;
  const CellResult result = train(witness);
  EXPECT_TRUE(result.progress.diverged);
  EXPECT_FALSE(result.progress.heldout);
}

TEST_F(TrainCell, AFixedCorrectionStays) {
  const auto heldout_nats = [&](bool learn, double factor) {
    model_.correction_factor = factor;
    model_.learn_correction_factor = learn;
    Witness witness;
    return train(witness).progress.heldout->nats;
  };
  const double fixed = heldout_nats(false, 0), learned = heldout_nats(true, 0);
  model_.use_output_correction = false;
  Witness witness;
  const double none = train(witness).progress.heldout->nats;
  EXPECT_NE(fixed, learned);
  EXPECT_NEAR(fixed, none, 1e-3 * none);  // d = 0 for ever is no correction
}

}  // namespace
}  // namespace comba::ablation
