#include "tasks/task_trainer.h"

#include <ATen/ops/cross_entropy_loss.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <memory>
#include <numbers>

#include "base/message.h"
#include "tasks/recall_model.h"
#include "tasks/task_checkpoint.h"
#include "training/optimizer.h"

namespace comba::tasks {
namespace {

using Clock = std::chrono::steady_clock;

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

std::vector<training::NamedParameter> decayed_parameters(const RecallModel& model) {
  std::vector<training::NamedParameter> parameters;
  for (const auto& item : model.named_parameters()) parameters.push_back({item.key(), item.value(), true});
  return parameters;
}

/// One training in progress.
class RunningTask {
 public:
  RunningTask(const TaskRun& run, TaskObserver& observer)
      : run_(run), observer_(observer), model_(initialized(run)), optimizer_(parameters(), adamw(run.training)) {
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
        throw Interrupted(stop.signal_number(), concat("[task] stopped after step ", progress_.step,
                                                       "; everything is saved in ", run_.checkpoint.string()));
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

  static training::AdamWOptions adamw(const TaskTraining& training) {
    return {.beta1 = 0.9, .beta2 = 0.999, .epsilon = 1e-8, .weight_decay = training.weight_decay};
  }

  std::vector<training::NamedParameter> parameters() const { return decayed_parameters(*model_); }

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
    optimizer_.step(learning_rate());
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
    TaskCheckpoint checkpoint{.tensors = optimizer_.state(), .progress = progress_};
    for (const auto& [name, tensor] : own_tensors()) checkpoint.tensors[name] = tensor;
    save_task_checkpoint(run_.checkpoint, checkpoint);
    saved_ = Clock::now();
  }

  void load() {
    TaskCheckpoint checkpoint = load_task_checkpoint(run_.checkpoint);
    const torch::NoGradGuard no_grad;
    for (const auto& [name, tensor] : own_tensors()) {
      const auto saved = checkpoint.tensors.extract(name);
      require(!saved.empty() && saved.mapped().sizes() == tensor.sizes(), ErrorCode::io,
              "[task] the checkpoint must be of this model; got another in ", run_.checkpoint.string());
      at::Tensor(tensor).copy_(saved.mapped());
    }
    optimizer_.load_state(checkpoint.tensors);
    progress_ = checkpoint.progress;
  }

  /// What a checkpoint has beside the optimizer's tensors.
  models::NamedTensors own_tensors() const {
    models::NamedTensors tensors = {{"loss_sum", loss_sum_}};
    for (const auto& item : model_->named_parameters()) tensors["model." + item.key()] = item.value();
    return tensors;
  }

  void count_time() {
    const Clock::time_point now = Clock::now();
    progress_.seconds += std::chrono::duration<double>(now - resumed_).count();
    resumed_ = now;
  }

  const TaskRun& run_;
  TaskObserver& observer_;
  std::shared_ptr<RecallModel> model_;
  training::AdamW optimizer_;
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
