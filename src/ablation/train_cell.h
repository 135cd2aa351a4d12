#pragma once

#include <cstdint>
#include <filesystem>

#include "ablation/cell_progress.h"
#include "ablation/heldout_text.h"
#include "base/stop_flag.h"
#include "models/model_config.h"
#include "training/mixture.h"
#include "training/train_config.h"
#include "training/train_step.h"

namespace comba::ablation {

/// One model to be trained, and judged at the end.
struct CellRun {
  models::ModelConfig model;
  training::TrainConfig config;  ///< evaluation_interval: held-out losses of the curve; sample_interval has no effect
  const training::Mixture& train;
  const HeldoutText& heldout;
  c10::Device device;
  training::StepOptions step = {};
  std::int64_t points = 20;         ///< of the curve, about
  std::filesystem::path directory;  ///< of its checkpoint while it is not finished
};

struct CellResult {
  std::int64_t num_parameters = 0;
  CellProgress progress;
  double final_loss() const;  ///< of training: mean over the last tenth of the curve, nats a token
};

/// Is told what happens in a cell.
class CellObserver {
 public:
  virtual ~CellObserver() = default;
  /// `progress` is where it goes on.
  virtual void on_start(const CellRun& run, std::int64_t num_parameters, const CellProgress& progress) = 0;
  virtual void on_step(std::int64_t step, double loss) = 0;
};

/// Trains from the beginning, or from the checkpoint in `directory`, with the same bits; removes the directory at the
/// end. Throws Error as Trainer and load_training_checkpoint do, but a loss that is not finite ends the cell as
/// diverged; Interrupted when `stop` is requested, with a checkpoint.
CellResult train_cell(const CellRun& run, CellObserver& observer, const StopFlag& stop);

}  // namespace comba::ablation
