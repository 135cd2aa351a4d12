#pragma once

#include <c10/core/Event.h>
#include <torch/types.h>

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>

#include "distributed/process_group.h"
#include "libtorch/device_graph.h"
#include "models/causal_lm.h"
#include "training/flat_parameters.h"
#include "training/optimizer.h"
#include "training/step_data.h"
#include "training/train_config.h"

namespace comba::training {

/// What one optimizer step has found before its update.
struct StepResult {
  double loss = 0;           ///< sum over the micro-batches of loss times share
  double gradient_norm = 0;  ///< before clipping
  bool finite = true;        ///< otherwise no weight was changed, by this step or a later one
};

struct StepOptions {
  bool graphs = true;  ///< CUDA graphs may be used
  int zero_stage = 1;  ///< see FlatParameters
};

/// One optimizer step of a model: forward and backward passes, clipping, AdamW. Nothing in it waits for a GPU, so that
/// the host can be a step ahead; after three steps on a GPU, as long as all micro-batches have the same shape, it is
/// recorded as CUDA graphs.
class TrainStep {
 public:
  /// `group` must outlive this object.
  TrainStep(std::shared_ptr<models::CausalLM> model, const TrainConfig& config,
            distributed::ProcessGroup& group = distributed::single_process(), const StepOptions& options = {});

  /// Adds the gradients of `share` times the mean loss of a micro-batch to those of the step; nothing where it has no
  /// labels. `last`: of the step. Processes of a group must make the same number of calls.
  void accumulate(const MicroBatch& micro_batch, double share, bool last = true);
  /// Ends the step: clips the gradients and updates the weights.
  void update(double learning_rate);

  /// What the oldest ended step whose result was not taken yet has found; waits for it. When it was not finite, steps
  /// change weights again from here on.
  StepResult take_result();
  std::int64_t num_results() const { return static_cast<std::int64_t>(results_.size()); }

  /// The first parameter whose gradient in these micro-batches is not finite; empty when there is none.
  std::string find_non_finite_gradient(const std::vector<MicroBatch>& micro_batches);

  FlatParameters& parameters() { return parameters_; }
  AdamW& optimizer() { return optimizer_; }
  const models::PassOptions& pass_options() const { return pass_; }
  c10::Device device() const { return loss_.device(); }
  /// Whether graphs are in use; and why not, where recording was tried and failed.
  bool has_graphs() const { return update_graph_ != nullptr; }
  const std::string& graph_failure() const { return graph_failure_; }

 private:
  struct PendingResult {
    at::Tensor on_host;  // [3] f64
    std::optional<c10::Event> arrived;
  };

  bool may_record() const;
  void pass(const MicroBatch& micro_batch, bool last);
  void update_now();
  /// Records `work` as a graph, or gives graphs up.
  template <class Work>
  void record(std::unique_ptr<DeviceGraph>& graph, Work&& work);

  std::shared_ptr<models::CausalLM> model_;
  models::PassOptions pass_;
  double max_gradient_norm_;
  distributed::ProcessGroup& group_;
  bool graphs_wanted_;
  FlatParameters parameters_;
  AdamW optimizer_;
  at::Tensor loss_, share_, learning_rate_;  // [] f64, [] f32, [] see AdamW
  at::Tensor skip_;                          // [] f32   1 once a loss or gradient was not finite
  at::Tensor result_;                        // [3] f64  loss, norm, whether the step was skipped
  at::Tensor host_results_;                  // [., 3] f64  where results go, one after the other; taking memory that a
                                             // GPU can write to at each step would make the host wait
  std::deque<PendingResult> results_;
  std::int64_t num_passes_ = 0;  // of the step at hand
  std::int64_t num_updates_ = 0;
  MicroBatch recorded_;  // where the graphs read their input
  std::unique_ptr<DeviceGraph> first_graph_, next_graph_, update_graph_;
  std::string graph_failure_;
};

}  // namespace comba::training
