#include "tasks/task_trainer.h"

#include <ATen/ops/cross_entropy_loss.h>
#include <torch/optim/adamw.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <memory>
#include <numbers>

#include "base/message.h"
#include "tasks/recall_model.h"
#include "tasks/task_checkpoint.h"

namespace comba::tasks {
namespace {

using Clock = std::chrono::steady_clock;
using Moments = torch::optim::AdamWParamState;

constexpr std::int64_t kStepsPerLoss = 20;
constexpr std::chrono::seconds kCheckpointInterval{60};

/// Some rows of a segment.
Segment rows(const Segment& segment, std::int64_t begin, std::int64_t count) {
  const std::int64_t present = std::min(count, segment.num_examples() - begin);
  return {.slice = segment.slice,
          .inputs = segment.inputs.narrow(0, begin, present),
          .positions = segment.positions.narrow(0, begin, present),
          .targets = segment.targets.narrow(0, begin, present)};
}

std::int64_t num_batches(const Segment& segment, std::int64_t batch_size) {
  return (segment.num_examples() + batch_size - 1) / batch_size;
}

/// One training in progress.
class RunningTask {
 public:
  RunningTask(const TaskRun& run, TaskObserver& observer)
      : run_(run),
        observer_(observer),
        model_(initialized(run)),
        optimizer_(model_->parameters(), adamw(run.training)) {
    loss_sum_ = at::zeros({}, run.data.train.at(0).inputs.options().dtype(at::kDouble));
    for (const Segment& segment : run.data.train) steps_per_epoch_ += num_batches(segment, run.batch_size);
    if (std::filesystem::exists(run.checkpoint)) load();
  }

  TaskResult run(const StopFlag& stop) {
    const TaskResult facts{
        .num_parameters = model_->num_parameters(), .state_bytes = model_->state_bytes(longest_test()), .progress = {}};
    observer_.on_start(facts.num_parameters, facts.state_bytes, progress_, steps_per_epoch_);
    resumed_ = saved_ = Clock::now();
    while (!is_finished()) {
      if (stop.requested()) {
        save();
        throw Interrupted(stop.signal_number(),
                          concat("[task] stopped after step ", progress_.step, "; everything is saved in ",
                                 run_.checkpoint.string(), " (continue with --resume)"));
      }
      is_epoch_over() ? finish_epoch(stop) : train_batch();
      if (Clock::now() - saved_ > kCheckpointInterval) save();
    }
    count_time();
    return {.num_parameters = facts.num_parameters, .state_bytes = facts.state_bytes, .progress = progress_};
  }

 private:
  static std::shared_ptr<RecallModel> initialized(const TaskRun& run) {
    auto model = std::make_shared<RecallModel>(run.model);
    model->initialize(run.training.seed);
    model->to(run.data.train.at(0).inputs.device());
    return model;
  }

  static torch::optim::AdamWOptions adamw(const TaskTraining& training) {
    return torch::optim::AdamWOptions(training.learning_rate).betas({0.9, 0.999}).weight_decay(training.weight_decay);
  }

  std::int64_t longest_test() const {
    std::int64_t longest = 0;
    for (const Segment& segment : run_.data.test) longest = std::max(longest, segment.length());
    return longest;
  }

  std::int64_t epochs_made() const { return std::ssize(progress_.epochs); }
  bool is_epoch_over() const { return progress_.step == (epochs_made() + 1) * steps_per_epoch_; }

  bool is_finished() const {
    if (progress_.epochs.empty()) return false;
    return progress_.diverged || epochs_made() == run_.training.epochs ||
           progress_.epochs.back().accuracy > run_.training.stop_accuracy;
  }

  double learning_rate() const {
    const double done = static_cast<double>(epochs_made()) / static_cast<double>(run_.training.epochs);
    return run_.training.learning_rate * (1 + std::cos(std::numbers::pi * done)) / 2;
  }

  /// The batches of an epoch stand in the order of their segments, unmixed.
  Segment next_batch() const {
    std::int64_t batch = progress_.step % steps_per_epoch_;
    auto segment = run_.data.train.begin();
    for (; batch >= num_batches(*segment, run_.batch_size); ++segment) batch -= num_batches(*segment, run_.batch_size);
    return rows(*segment, batch * run_.batch_size, run_.batch_size);
  }

  void train_batch() {
    const Segment batch = next_batch();
    // Dropout draws by the step's number alone: so an interrupted run goes on with the same masks.
    torch::manual_seed(run_.training.seed * 1'000'003 + static_cast<std::uint64_t>(progress_.step));
    model_->train();
    model_->zero_grad();
    const at::Tensor logits = model_->forward(batch.inputs, batch.positions);  // [B, P, vocab]
    const at::Tensor loss = at::cross_entropy_loss(logits.flatten(0, 1), batch.targets.flatten());
    loss.backward();
    for (auto& group : optimizer_.param_groups()) group.options().set_lr(learning_rate());
    optimizer_.step();
    loss_sum_ += loss.detach();
    ++progress_.step;
    if (progress_.step % kStepsPerLoss == 0) observer_.on_loss(progress_, loss.item<double>());
  }

  /// Tests, unless asked to stop meanwhile: then the epoch stays open.
  void finish_epoch(const StopFlag& stop) {
    std::vector<SliceAccuracy> slices;
    double correct = 0, examples = 0;
    for (const Segment& segment : run_.data.test) {
      slices.push_back(test(segment, stop));
      if (stop.requested()) return;
      correct += slices.back().accuracy * static_cast<double>(segment.num_examples());
      examples += static_cast<double>(segment.num_examples());
    }
    const double loss = loss_sum_.item<double>() / static_cast<double>(steps_per_epoch_);
    progress_.epochs.push_back({.learning_rate = learning_rate(), .loss = loss, .accuracy = correct / examples});
    progress_.slices = slices;
    progress_.diverged = !std::isfinite(loss);
    loss_sum_.zero_();
    count_time();
    observer_.on_epoch(progress_);
  }

  SliceAccuracy test(const Segment& segment, const StopFlag& stop) {
    const torch::NoGradGuard no_grad;
    model_->eval();
    at::Tensor correct = at::zeros({}, segment.inputs.options());
    for (std::int64_t i = 0; i < num_batches(segment, run_.test_batch_size) && !stop.requested(); ++i) {
      const Segment batch = rows(segment, i * run_.test_batch_size, run_.test_batch_size);
      correct += (model_->forward(batch.inputs, batch.positions).argmax(-1) == batch.targets).sum();
    }
    return {.slice = segment.slice,
            .length = segment.length(),
            .examples = segment.num_examples(),
            .accuracy = correct.item<double>() / static_cast<double>(segment.targets.numel())};
  }

  void save() {
    count_time();
    save_task_checkpoint(run_.checkpoint, {.tensors = tensors(), .progress = progress_});
    saved_ = Clock::now();
  }

  void load() {
    const TaskCheckpoint checkpoint = load_task_checkpoint(run_.checkpoint);
    const torch::NoGradGuard no_grad;
    for (const auto& [name, tensor] : tensors()) {
      const auto saved = checkpoint.tensors.find(name);
      require(saved != checkpoint.tensors.end() && saved->second.sizes() == tensor.sizes(), ErrorCode::io,
              "[task] the checkpoint must be of this model; got another in ", run_.checkpoint.string());
      at::Tensor(tensor).copy_(saved->second);
    }
    progress_ = checkpoint.progress;
    for (auto& item : optimizer_.state()) static_cast<Moments&>(*item.second).step(progress_.step);
  }

  /// All that a later process needs, live.
  models::NamedTensors tensors() {
    models::NamedTensors tensors = {{"loss_sum", loss_sum_}};
    for (const auto& item : model_->named_parameters()) {
      const Moments& moments = moments_of(item.value());
      tensors["model." + item.key()] = item.value();
      tensors["exp_avg." + item.key()] = moments.exp_avg();
      tensors["exp_avg_sq." + item.key()] = moments.exp_avg_sq();
    }
    return tensors;
  }

  /// Of a parameter; LibTorch makes them in the first step only.
  const Moments& moments_of(const at::Tensor& parameter) {
    auto& state = optimizer_.state()[parameter.unsafeGetTensorImpl()];
    if (state == nullptr) {
      auto moments = std::make_unique<Moments>();
      moments->step(0);
      moments->exp_avg(at::zeros_like(parameter).detach());
      moments->exp_avg_sq(at::zeros_like(parameter).detach());
      state = std::move(moments);
    }
    return static_cast<const Moments&>(*state);
  }

  void count_time() {
    const Clock::time_point now = Clock::now();
    progress_.seconds += std::chrono::duration<double>(now - resumed_).count();
    resumed_ = now;
  }

  const TaskRun& run_;
  TaskObserver& observer_;
  std::shared_ptr<RecallModel> model_;
  torch::optim::AdamW optimizer_;
  at::Tensor loss_sum_;  // of the epoch's steps, on the device
  std::int64_t steps_per_epoch_ = 0;
  TaskProgress progress_;
  Clock::time_point resumed_, saved_;
};

}  // namespace

TaskResult train_task(const TaskRun& run, TaskObserver& observer, const StopFlag& stop) {
  return RunningTask(run, observer).run(stop);
}

}  // namespace comba::tasks
