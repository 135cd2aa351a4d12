#pragma once

#include <cstdint>
#include <memory>

#include "distributed/process_group.h"
#include "models/causal_lm.h"
#include "models/safetensors.h"
#include "training/batch.h"
#include "training/mixture.h"
#include "training/step_clock.h"
#include "training/step_data.h"
#include "training/train_config.h"
#include "training/train_step.h"

namespace comba::training {

/// What one optimizer step did.
struct StepReport {
  std::int64_t step = 0;     ///< completed steps, this one included
  double loss = 0;           ///< mean cross entropy of the step's tokens before the update, nats a token
  double learning_rate = 0;  ///< used by this step
  double gradient_norm = 0;  ///< before clipping
  std::int64_t tokens = 0;   ///< trained on since the first step
  double seconds = 0;        ///< of this step alone, where it is computed
};

/// A model in training: what step() needs, and nothing about files. The same model, data, configuration, device and
/// numbers of LibTorch threads and processes give the same bits, on a GPU where LibTorch's algorithms are
/// deterministic.
///
/// In a group of processes each takes an equal share of a step's windows, and the step is that of one process but for
/// rounding. All must make the same calls, and all can throw LostProcess.
class Trainer {
 public:
  /// The data sets and `group` must outlive the trainer; it computes where the model is. Throws Error(invalid_argument)
  /// when the configuration makes no sense, the data set is too small for one window, its ids do not fit into the
  /// model's vocabulary, or the processes cannot share a batch equally. The leading process's weights become those of
  /// all.
  Trainer(std::shared_ptr<models::CausalLM> model, const Mixture& dataset, const TrainConfig& config,
          distributed::ProcessGroup& group = distributed::single_process(), const StepOptions& options = {});

  /// One optimizer step. Throws Error(numerical), naming the first parameter with such a gradient, when loss or
  /// gradient are not finite; the weights are then still those of the step before.
  StepReport step();

  /// The two halves of step(), for a GPU that has the next step to do while the host reads of the last one. A step that
  /// is not finite is found in finish_step(); those started after it have changed nothing either, and are taken back.
  void start_step();
  StepReport finish_step();
  /// Steps that are started and not finished.
  std::int64_t num_unfinished() const { return step_.num_results(); }

  /// Completed steps, the unfinished ones included.
  std::int64_t num_steps() const { return num_steps_; }

  models::CausalLM& model() { return *model_; }
  const models::CausalLM& model() const { return *model_; }
  const TrainConfig& config() const { return config_; }
  const TrainStep& train_step() const { return step_; }
  distributed::ProcessGroup& group() const { return group_; }

  /// What a checkpoint must keep beside the weights: see optimizer_state.h. Empty where the group is not led.
  models::NamedTensors optimizer_state();
  /// Continues where a saved state was; the model must have the weights of that moment.
  void load_optimizer_state(const models::NamedTensors& state);

 private:
  /// This process's share of the windows of step number `step`, from 0.
  StepWindows windows_of(std::int64_t step) const;

  std::shared_ptr<models::CausalLM> model_;
  Mixture dataset_;
  TrainConfig config_;
  distributed::ProcessGroup& group_;
  MixtureSampler sampler_;
  StepData data_;
  TrainStep step_;
  StepClock clock_;
  std::int64_t num_steps_ = 0;
};

}  // namespace comba::training
