#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "distributed/process_group.h"
#include "models/causal_lm.h"
#include "models/safetensors.h"
#include "training/batch.h"
#include "training/mixture.h"
#include "training/optimizer.h"
#include "training/sharded_parameters.h"
#include "training/train_config.h"

namespace comba::training {

/// What one optimizer step did.
struct StepReport {
  std::int64_t step = 0;     ///< completed steps, this one included
  double loss = 0;           ///< mean cross entropy of the step's tokens before the update, nats a token
  double learning_rate = 0;  ///< used by this step
  double gradient_norm = 0;  ///< before clipping
  std::int64_t tokens = 0;   ///< trained on since the first step
  double seconds = 0;        ///< wall-clock time of this step
};

/// A model in training: what step() needs, and nothing about files. The same model, data, configuration, and numbers of
/// LibTorch threads and processes give the same bits.
///
/// In a group of processes each takes an equal share of a step's windows, and the step is that of one process but for
/// rounding. All must make the same calls, and all can throw LostProcess.
class Trainer {
 public:
  /// The data sets and `group` must outlive the trainer. Throws Error(invalid_argument) when the configuration makes no
  /// sense, the data set is too small for one window, its ids do not fit into the model's vocabulary, or the processes
  /// cannot share a batch equally. The leading process's weights become those of all.
  Trainer(std::shared_ptr<models::CausalLM> model, const Mixture& dataset, const TrainConfig& config,
          distributed::ProcessGroup& group = distributed::single_process());

  /// One optimizer step. Throws Error(numerical) when loss or gradient are not finite; the weights are then still those
  /// of the step before.
  StepReport step();

  /// Completed steps.
  std::int64_t num_steps() const { return optimizer_.num_steps(); }

  models::CausalLM& model() { return *model_; }
  const models::CausalLM& model() const { return *model_; }
  const TrainConfig& config() const { return config_; }

  distributed::ProcessGroup& group() const { return group_; }

  /// What a checkpoint must keep beside the weights: see AdamW. Empty where the group is not led.
  models::NamedTensors optimizer_state() { return parameters_.gather_state(optimizer_.state()); }
  /// Continues where a saved state was; the model must have the weights of that moment.
  void load_optimizer_state(const models::NamedTensors& state) { optimizer_.load_state(parameters_.own_state(state)); }

 private:
  /// Mean cross entropy of the labels that count.
  at::Tensor loss_of(const Batch& batch);
  /// Adds the gradients of this process's share of a step; returns the mean loss of the whole step.
  double accumulate_gradients(std::int64_t step);
  /// Adds the gradients of windows [first_sample, first_sample + num_samples); returns what they add to the mean loss
  /// of the step, whose labels count alike wherever they are.
  double accumulate_gradients(std::int64_t first_sample, std::int64_t num_samples, std::int64_t labels_of_step);

  std::shared_ptr<models::CausalLM> model_;
  Mixture dataset_;
  TrainConfig config_;
  distributed::ProcessGroup& group_;
  MixtureSampler sampler_;
  ShardedParameters parameters_;
  AdamW optimizer_;
};

}  // namespace comba::training
