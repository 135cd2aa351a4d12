#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "base/interrupted.h"
#include "base/stop_flag.h"
#include "data/token_dataset.h"
#include "evaluation/evaluate.h"
#include "models/model_config.h"
#include "training/mixture.h"
#include "training/train_config.h"
#include "training/trainer.h"

namespace comba::training {

/// Is told what happens in a run, in the leading process and the thread that trains.
class TrainObserver {
 public:
  virtual ~TrainObserver() = default;
  /// Before the first step. `first_step` completed steps are not made again.
  virtual void on_start(const models::CausalLM& model, std::int64_t first_step) = 0;
  virtual void on_step(const StepReport& report) = 0;
  virtual void on_evaluation(std::int64_t step, const evaluation::EvaluationResult& heldout) = 0;
  virtual void on_sample(std::int64_t step, const std::string& text) = 0;
  virtual void on_checkpoint(const std::filesystem::path& directory) = 0;
  virtual void on_trace(const std::filesystem::path& path) = 0;
  /// Something the user should know, in one sentence.
  virtual void on_warning(const std::string& text) = 0;
};

/// A whole training run.
struct TrainingRun {
  models::ModelConfig model;
  TrainConfig config;
  Mixture train;
  const data::TokenDataset& heldout;         ///< may be empty: then nothing is evaluated
  std::filesystem::path directory;           ///< see run_directory.h
  std::filesystem::path initial_model = {};  ///< model directory with the weights to begin with; empty: drawn at random
  c10::Device device = c10::kCPU;            ///< where to compute; see use_device
  StepOptions step = {};
  /// Steps between diagnoses of the control loops (evaluation/loop_diagnostics.h), on the run's first window each time;
  /// the first is of the model as it begins. 0: none.
  std::int64_t diagnostics_interval = 0;
  std::int64_t profile_steps = 0;  ///< steps whose profile goes to trace.json in `directory`; 0: none
  bool resume = false;             ///< go on from the newest checkpoint in `directory`, if there is one
  /// The processes that share the work. All see the same files; the leading one writes, and tells its observer.
  distributed::ProcessGroup& group = distributed::single_process();
};

/// Trains to the last step and leaves its checkpoint in the run directory. A run that was interrupted and resumed has
/// the same bits as one that was not, given the same numbers of LibTorch threads and processes.
///
/// When `stop` is requested in any process, all finish the step, save, and throw Interrupted. Other errors: those of
/// Trainer, prepare_run_directory, load_initial_weights and require_same_run; Error(invalid_argument) for diagnostics
/// of a model without control loops; Error(numerical), naming step and newest checkpoint, when the loss diverges.
void train(const TrainingRun& run, TrainObserver& observer, const StopFlag& stop);

}  // namespace comba::training
