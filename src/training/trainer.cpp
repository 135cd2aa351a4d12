#include "training/trainer.h"

#include <utility>

#include "base/message.h"
#include "training/learning_rate.h"
#include "training/optimizer_state.h"

namespace comba::training {
namespace {

const TrainConfig& validated(const TrainConfig& config) {
  validate(config);
  return config;
}

std::optional<std::int64_t> border_token(const TrainConfig& config, const Mixture& dataset) {
  return config.reset_at_documents ? std::optional(dataset.tokenizer().bos()) : std::nullopt;
}

/// How many labels of a step are to be learned, in all processes, of which this one has `own`.
std::int64_t count_labels(const std::vector<MicroBatch>& own, distributed::ProcessGroup& group) {
  std::int64_t count = 0;
  for (const MicroBatch& micro_batch : own) count += micro_batch.num_labels;
  at::Tensor sum = at::full({1}, count, at::kLong);
  group.all_reduce_sum(sum);
  return sum.item<std::int64_t>();
}

}  // namespace

Trainer::Trainer(std::shared_ptr<models::CausalLM> model, const Mixture& dataset, const TrainConfig& config,
                 distributed::ProcessGroup& group, const StepOptions& options)
    : model_(std::move(model)),
      dataset_(dataset),
      config_(validated(config)),
      group_(group),
      sampler_(dataset, config.context_length, static_cast<std::uint64_t>(config.seed)),
      data_(dataset_, sampler_, model_->device(), border_token(config, dataset)),
      step_(model_, config, group, options),
      clock_(model_->device()) {
  require(dataset.tokenizer().vocab() <= model_->config().vocab_size, ErrorCode::invalid_argument,
          "[Trainer] the model's vocab_size must be at least the data set's vocabulary of ",
          dataset.tokenizer().vocab(), "; got ", model_->config().vocab_size);
  require(config_.batch_size % group_.size() == 0, ErrorCode::invalid_argument,
          "[Trainer] batch_size must be a multiple of the number of processes (", group_.size(), "); got ",
          config_.batch_size);
  step_.parameters().broadcast_values();
}

StepWindows Trainer::windows_of(std::int64_t step) const {
  const std::int64_t share = config_.batch_size / group_.size();
  return {.first_sample = step * config_.batch_size + group_.rank() * share,
          .num_samples = share,
          .micro_batch_size = config_.micro_batch_size > 0 ? config_.micro_batch_size : share};
}

StepReport Trainer::step() {
  start_step();
  return finish_step();
}

void Trainer::start_step() {
  const std::int64_t step = num_steps_;
  clock_.start();
  const std::vector<MicroBatch> micro_batches = data_.take(windows_of(step));
  const std::int64_t labels_of_step =
      dataset_.has_loss_mask() ? count_labels(micro_batches, group_) : config_.batch_size * config_.context_length;
  require(labels_of_step > 0, ErrorCode::invalid_argument,
          "[Trainer] a step must have tokens to learn; got only prompts in step ", step + 1,
          " (a larger batch_size or context_length helps)");
  data_.before_work();
  for (const MicroBatch& micro_batch : micro_batches) {
    const double share = static_cast<double>(micro_batch.num_labels) / static_cast<double>(labels_of_step);
    step_.accumulate(micro_batch, share, /*last=*/&micro_batch == &micro_batches.back());
  }
  step_.update(learning_rate(config_, step));
  clock_.stop();
  ++num_steps_;
  if (num_steps_ < config_.steps) data_.prefetch(windows_of(num_steps_));
}

StepReport Trainer::finish_step() {
  const std::int64_t step = num_steps_ - num_unfinished();
  const StepResult result = step_.take_result();
  if (!result.finite) {
    clock_.clear();
    num_steps_ = step;
    const std::string name = step_.find_non_finite_gradient(data_.take(windows_of(step)));
    throw Error(ErrorCode::numerical,
                concat("[Trainer] loss and gradient must be finite; got loss ", result.loss, " and gradient norm ",
                       result.gradient_norm, " in step ", step + 1, name.empty() ? "" : ", first in ", name,
                       " (a lower learning_rate or a longer warm-up may help)"));
  }
  return {.step = step + 1,
          .loss = result.loss,
          .learning_rate = learning_rate(config_, step),
          .gradient_norm = result.gradient_norm,
          .tokens = (step + 1) * config_.batch_size * config_.context_length,
          .seconds = clock_.take_seconds()};
}

models::NamedTensors Trainer::optimizer_state() { return gather_state(step_.parameters(), step_.optimizer()); }

void Trainer::load_optimizer_state(const models::NamedTensors& state) {
  load_state(state, step_.parameters(), step_.optimizer());
  num_steps_ = step_.optimizer().num_steps().item<std::int64_t>();
  step_.parameters().refresh_copies();
}

}  // namespace comba::training
