#include "training/train.h"

#include <memory>
#include <optional>
#include <span>
#include <string>

#include "base/message.h"
#include "generation/generate.h"
#include "training/metrics_log.h"
#include "training/run_directory.h"
#include "training/training_checkpoint.h"

namespace comba::training {
namespace {

bool is_due(std::int64_t interval, std::int64_t step) { return interval > 0 && step % interval == 0; }

Trainer new_trainer(const TrainingRun& run) {
  auto model = std::make_shared<models::CausalLM>(run.model);
  if (run.initial_model.empty()) {
    model->initialize(static_cast<std::uint64_t>(run.config.seed));
  } else {
    load_initial_weights(*model, run.initial_model, run.train);
  }
  return Trainer(std::move(model), run.train, run.config, run.group);
}

Trainer resumed_trainer(const TrainingRun& run, const CheckpointEntry& checkpoint, TrainObserver& observer) {
  require_same_run(checkpoint.path, run.model, run.config, run.train);
  const TrainingRecord record = read_training_record(checkpoint.path);
  const auto compare = [&](const char* what, int saved, int now) {
    if (saved == now || !run.group.leads()) return;
    observer.on_warning(concat("the checkpoint was made with ", saved, ' ', what, ", this run has ", now,
                               ": sums may round otherwise"));
  };
  compare("threads", record.num_threads, at::get_num_threads());
  compare("processes", record.num_processes, run.group.size());
  return load_training_checkpoint(checkpoint.path, run.train, run.config, run.group);
}

/// The checkpoint to go on from, which the leading process finds for all.
std::optional<CheckpointEntry> agreed_checkpoint(const TrainingRun& run) {
  std::optional<CheckpointEntry> checkpoint;
  if (run.group.leads() && run.resume) checkpoint = latest_checkpoint(run.directory);
  at::Tensor step = at::full({1}, checkpoint ? checkpoint->step : -1, at::kLong);
  run.group.broadcast(step);
  const auto found = step.item<std::int64_t>();
  if (!run.group.leads() && found >= 0) checkpoint = {found, checkpoint_path(run.directory, found)};
  return checkpoint;
}

/// The signal by which some process was asked to stop, or 0: the same answer in all of them.
int agreed_signal(const StopFlag& stop, distributed::ProcessGroup& group) {
  at::Tensor signal = at::full({1}, stop.signal_number(), at::kLong);
  group.all_reduce_max(signal);
  return signal.item<int>();
}

/// One run in progress: the trainer and the files it feeds.
class RunningTraining {
 public:
  RunningTraining(const TrainingRun& run, std::optional<CheckpointEntry> checkpoint, TrainObserver& observer)
      : run_(run),
        observer_(observer),
        trainer_(checkpoint ? resumed_trainer(run, *checkpoint, observer) : new_trainer(run)),
        saved_step_(checkpoint ? checkpoint->step : 0) {
    if (leads()) metrics_.emplace(metrics_path(run.directory), trainer_.num_steps());
  }

  void run(const StopFlag& stop) {
    if (leads()) observer_.on_start(trainer_.model(), trainer_.num_steps());
    while (trainer_.num_steps() < run_.config.steps) {
      make_step();
      const std::int64_t step = trainer_.num_steps();
      const bool last = step == run_.config.steps;
      const int signal = agreed_signal(stop, run_.group);
      if (is_due(run_.config.evaluation_interval, step) && run_.heldout.num_documents() > 0) {
        while_the_others_wait([&] { evaluate(); });
      }
      if (is_due(run_.config.sample_interval, step)) while_the_others_wait([&] { sample(); });
      if (last || signal != 0 || is_due(run_.config.checkpoint_interval, step)) save();
      if (signal != 0 && !last) {
        throw Interrupted(signal, concat("[train] stopped after step ", step, "; everything is saved in ",
                                         run_.directory.string(), " (continue with --resume)"));
      }
    }
  }

 private:
  bool leads() const { return run_.group.leads(); }

  /// What the leading process does alone.
  template <class Work>
  void while_the_others_wait(Work&& work) {
    if (leads()) work();
    run_.group.barrier();
  }

  void make_step() {
    try {
      const StepReport report = trainer_.step();
      if (!leads()) return;
      metrics_->write(report);
      observer_.on_step(report);
    } catch (const Error& error) {
      if (error.code() != ErrorCode::numerical) throw;
      throw Error(ErrorCode::numerical, concat(error.what(), "; newest checkpoint: ", newest_checkpoint()));
    }
  }

  void evaluate() {
    const auto heldout = evaluation::evaluate(trainer_.model(), run_.heldout, {});
    metrics_->write(trainer_.num_steps(), heldout);
    observer_.on_evaluation(trainer_.num_steps(), heldout);
  }

  /// The same seed each time, so that two samples of a run differ by what it has learned in between.
  void sample() {
    const data::Tokenizer& tokenizer = run_.train.tokenizer();
    generation::Prompt prompt{.tokens = tokenizer.encode(run_.config.sample_prompt)};
    prompt.tokens.insert(prompt.tokens.begin(), tokenizer.bos());
    const auto continuations =
        generation::generate(trainer_.model(), std::span(&prompt, 1),
                             {.max_tokens = run_.config.sample_tokens,
                              .vocab = tokenizer.vocab(),
                              .stop_token = tokenizer.bos(),
                              .sampling = {.seed = static_cast<std::uint64_t>(run_.config.seed)}});
    const std::string text = run_.config.sample_prompt + tokenizer.decode(continuations[0].tokens);
    metrics_->write_sample(trainer_.num_steps(), text);
    observer_.on_sample(trainer_.num_steps(), text);
  }

  void save() {
    saved_step_ = trainer_.num_steps();
    const auto directory = checkpoint_path(run_.directory, saved_step_);
    save_training_checkpoint(trainer_, run_.train, directory);
    while_the_others_wait([&] {
      prune_checkpoints(run_.directory, run_.config.keep_checkpoints,
                        best_checkpoint(run_.directory, metrics_->heldout()));
      observer_.on_checkpoint(directory);
    });
  }

  std::string newest_checkpoint() const {
    return saved_step_ > 0 ? checkpoint_path(run_.directory, saved_step_).string() : "none";
  }

  const TrainingRun& run_;
  TrainObserver& observer_;
  Trainer trainer_;
  std::optional<MetricsLog> metrics_;  // in the leading process
  std::int64_t saved_step_;
};

}  // namespace

void train(const TrainingRun& run, TrainObserver& observer, const StopFlag& stop) {
  validate(run.config);
  if (run.group.leads()) prepare_run_directory(run.directory, run.resume);
  RunningTraining(run, agreed_checkpoint(run), observer).run(stop);
}

}  // namespace comba::training
