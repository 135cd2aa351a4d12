#include "training/train_step.h"

#include <c10/core/impl/VirtualGuardImpl.h>

#include <utility>

#include "base/message.h"
#include "libtorch/device.h"

namespace comba::training {
namespace {

constexpr std::int64_t kMostPending = 4;
constexpr std::int64_t kWarmupSteps = 3;  // libraries choose kernels and take workspaces in the first ones

std::vector<NamedParameter> parameters_of(const models::CausalLM& model) {
  std::vector<NamedParameter> parameters;
  for (const auto& item : model.named_parameters()) parameters.push_back({item.key(), item.value()});
  return parameters;
}

std::optional<at::ScalarType> compute_dtype(const TrainConfig& config) {
  return config.dtype == "bf16" ? std::optional(at::kBFloat16) : std::nullopt;
}

bool same_shape(const MicroBatch& a, const MicroBatch& b) {
  return a.batch.input_ids.defined() && a.batch.input_ids.sizes() == b.batch.input_ids.sizes();
}

}  // namespace

TrainStep::TrainStep(std::shared_ptr<models::CausalLM> model, const TrainConfig& config,
                     distributed::ProcessGroup& group, const StepOptions& options)
    : model_(std::move(model)),
      pass_{.compute_dtype = compute_dtype(config), .recompute_blocks = config.recompute_blocks},
      max_gradient_norm_(config.max_gradient_norm),
      group_(group),
      graphs_wanted_(options.graphs),
      parameters_(parameters_of(*model_), group,
                  {.linear_dtype = compute_dtype(config), .zero_stage = options.zero_stage}),
      optimizer_(parameters_.own(), {.beta1 = config.beta1,
                                     .beta2 = config.beta2,
                                     .epsilon = config.epsilon,
                                     .weight_decay = config.weight_decay}) {
  const at::TensorOptions f32 = optimizer_.num_steps().options(), f64 = f32.dtype(at::kDouble);
  loss_ = at::zeros({}, f64);
  share_ = at::ones({}, f32);
  learning_rate_ = at::zeros({}, loss_.is_cpu() ? f64 : f32);
  skip_ = at::zeros({}, f32);
  result_ = at::zeros({3}, f64);
  const at::TensorOptions on_host = at::TensorOptions(at::kDouble).pinned_memory(!result_.is_cpu());
  host_results_ = at::zeros({kMostPending, 3}, on_host);
}

/// One forward and backward pass over a micro-batch, whose gradients replace or join those of the step.
void TrainStep::pass(const MicroBatch& micro_batch, bool last) {
  const auto& [batch, cu_seqlens, num_labels] = micro_batch;
  const bool first = num_passes_ == 0;
  parameters_.begin_pass(first, last);
  at::Tensor loss;
  if (num_labels > 0) {  // the mean over none is no number
    const FlatParameters::CopiesInUse copies(parameters_);
    loss = model_->loss(batch.input_ids, batch.labels, cu_seqlens, pass_) * share_;
    loss.backward();
    parameters_.end_pass();
  } else {
    loss = at::zeros_like(loss_);
    parameters_.end_pass();
  }
  const at::NoGradGuard no_grad;
  first ? loss_.copy_(loss) : loss_.add_(loss);
}

void TrainStep::accumulate(const MicroBatch& micro_batch, double share, bool last) {
  share_.fill_(share);
  std::unique_ptr<DeviceGraph>& graph = num_passes_ == 0 ? first_graph_ : next_graph_;
  const bool is_usual = !micro_batch.cu_seqlens.defined() && micro_batch.num_labels > 0;
  if (may_record() && !graph && is_usual) {
    if (!recorded_.batch.input_ids.defined()) {
      recorded_ = {.batch = {micro_batch.batch.input_ids.clone(), micro_batch.batch.labels.clone()}, .num_labels = 1};
    }
    if (same_shape(recorded_, micro_batch)) record(graph, [&] { pass(recorded_, last); });
  }
  if (graph && is_usual && same_shape(recorded_, micro_batch)) {
    recorded_.batch.input_ids.copy_(micro_batch.batch.input_ids);
    recorded_.batch.labels.copy_(micro_batch.batch.labels);
    graph->replay();
  } else {
    pass(micro_batch, last);
  }
  ++num_passes_;
}

void TrainStep::update_now() {
  const at::NoGradGuard no_grad;
  at::Tensor sums = at::stack({loss_, parameters_.square_of_gradients()});
  group_.all_reduce_sum(sums);
  const at::Tensor loss = sums[0], norm = sums[1].sqrt();
  skip_.copy_(at::maximum(skip_, at::isfinite(loss + norm).logical_not().to(at::kFloat)));
  result_.copy_(at::stack({loss, norm, skip_.to(at::kDouble)}));
  const at::Tensor divisor = (norm / max_gradient_norm_).clamp_min(1).to(at::kFloat);
  optimizer_.step(learning_rate_, divisor, skip_);
  parameters_.gather_values();
}

void TrainStep::update(double learning_rate) {
  learning_rate_.fill_(learning_rate);
  if (may_record() && !update_graph_) record(update_graph_, [&] { update_now(); });
  update_graph_ ? update_graph_->replay() : update_now();
  num_passes_ = 0;
  ++num_updates_;

  require(num_results() < kMostPending, ErrorCode::internal, "[TrainStep] at most ", kMostPending,
          " results may wait to be taken");
  PendingResult pending{.on_host = host_results_[num_updates_ % kMostPending], .arrived = {}};
  pending.on_host.copy_(result_, /*non_blocking=*/true);
  if (!result_.is_cpu()) {
    pending.arrived.emplace(result_.device().type());
    pending.arrived->record(c10::impl::VirtualGuardImpl(result_.device().type()).getStream(result_.device()));
  }
  results_.push_back(std::move(pending));
}

StepResult TrainStep::take_result() {
  const PendingResult pending = std::move(results_.front());
  results_.pop_front();
  if (pending.arrived) pending.arrived->synchronize();
  const double* values = pending.on_host.const_data_ptr<double>();
  const StepResult result = {.loss = values[0], .gradient_norm = values[1], .finite = values[2] == 0};
  if (!result.finite) {
    while (!results_.empty()) take_result();
    skip_.zero_();
  }
  return result;
}

std::string TrainStep::find_non_finite_gradient(const std::vector<MicroBatch>& micro_batches) {
  for (const MicroBatch& micro_batch : micro_batches) {
    num_passes_ = 0;
    pass(micro_batch, /*last=*/true);
    const std::string name = parameters_.non_finite_gradient();
    if (!name.empty()) return name;
  }
  return {};
}

bool TrainStep::may_record() const {
  return graphs_wanted_ && graph_failure_.empty() && !loss_.is_cpu() && group_.size() == 1 &&
         num_updates_ >= kWarmupSteps;
}

template <class Work>
void TrainStep::record(std::unique_ptr<DeviceGraph>& graph, Work&& work) {
  // What a graph allocates is its own: the first one takes the place of what the steps before it have used.
  synchronize(device());
  release_cached_memory(device());
  auto recording = make_device_graph();
  try {
    recording->record(work);
    graph = std::move(recording);
  } catch (const std::exception& error) {
    graph_failure_ = error.what();
    for (auto* given_up : {&first_graph_, &next_graph_, &update_graph_}) given_up->reset();
  }
}

}  // namespace comba::training
