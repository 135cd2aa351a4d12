#include "training/train.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "base/message.h"
#include "evaluation/loop_diagnostics.h"
#include "generation/generate.h"
#include "training/document_borders.h"
#include "training/memory_need.h"
#include "training/metrics_log.h"
#include "training/profiler.h"
#include "training/run_directory.h"
#include "training/training_checkpoint.h"

namespace comba::training {
namespace {

constexpr std::int64_t kStepsBeforeProfile = 5;  // libraries choose kernels in the first, graphs are recorded

bool is_due(std::int64_t interval, std::int64_t step) { return interval > 0 && step % interval == 0; }

Trainer new_trainer(const TrainingRun& run) {
  auto model = std::make_shared<models::CausalLM>(run.model);
  if (run.initial_model.empty()) {
    model->initialize(static_cast<std::uint64_t>(run.config.seed));
  } else {
    load_initial_weights(*model, run.initial_model, run.train);
  }
  model->to(run.device);
  return Trainer(std::move(model), run.train, run.config, run.group, run.step);
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
  const std::string device = c10::DeviceTypeName(run.device.type(), /*lower_case=*/true);
  if (record.device != device && run.group.leads()) {
    observer.on_warning(concat("the checkpoint was made on ", record.device, ", this run is on ", device,
                               ": sums may round otherwise"));
  }
  return load_training_checkpoint(checkpoint.path, run.train, run.config, run.group, run.device, run.step);
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

void require_sound_diagnostics(const TrainingRun& run) {
  require(run.diagnostics_interval >= 0, ErrorCode::invalid_argument,
          "[train] diagnostics_interval must be at least 0; got ", run.diagnostics_interval);
  if (run.diagnostics_interval == 0) return;
  models::CausalLM model(run.model, at::TensorOptions(at::kMeta));
  require(evaluation::has_control_loops(model), ErrorCode::invalid_argument,
          "[train] diagnostics are of Comba and Gated DeltaNet layers; got a model without any (model_type ",
          run.model.model_type, "): set diagnostics_interval = 0");
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
    const std::int64_t first_step = trainer_.num_steps();
    if (first_step == 0 && run_.diagnostics_interval > 0) while_the_others_wait([&] { diagnose(); });
    const std::int64_t last_chance = std::max(first_step, run_.config.steps - run_.profile_steps);
    first_profiled_ = std::min(first_step + kStepsBeforeProfile, last_chance);
    while (trainer_.num_steps() < run_.config.steps) {
      profile();
      start_step();
      const std::int64_t step = trainer_.num_steps();
      const bool last = step == run_.config.steps;
      // A GPU computes this step while the next one is started, unless something reads the weights in between.
      finish_steps(/*but=*/run_.device.is_cpu() || last || is_due_after(step) ? 0 : 1);
      const int signal = agreed_signal(stop, run_.group);
      if (signal != 0) finish_steps(/*but=*/0);
      if (is_due(run_.config.evaluation_interval, step) && run_.heldout.num_documents() > 0) {
        while_the_others_wait([&] { evaluate(); });
      }
      if (is_due(run_.diagnostics_interval, step)) while_the_others_wait([&] { diagnose(); });
      if (is_due(run_.config.sample_interval, step)) while_the_others_wait([&] { sample(); });
      if (last || signal != 0 || is_due(run_.config.checkpoint_interval, step)) save();
      if (signal != 0 && !last) {
        throw Interrupted(signal, concat("[train] stopped after step ", step, "; everything is saved in ",
                                         run_.directory.string(), " (continue with --resume)"));
      }
    }
    profile();
  }

 private:
  bool leads() const { return run_.group.leads(); }

  /// What the leading process does alone.
  template <class Work>
  void while_the_others_wait(Work&& work) {
    if (leads()) work();
    run_.group.barrier();
  }

  /// Whether something reads the weights after this step.
  bool is_due_after(std::int64_t step) const {
    return is_due(run_.config.evaluation_interval, step) || is_due(run_.config.sample_interval, step) ||
           is_due(run_.config.checkpoint_interval, step) || is_due(run_.diagnostics_interval, step);
  }

  /// Begins or ends the profile where it is due before the next step.
  void profile() {
    if (run_.profile_steps == 0 || !leads()) return;
    if (!profiler_ && trainer_.num_steps() == first_profiled_) {
      profiler_.emplace(run_.device);
      profiled_until_ = std::min(trainer_.num_steps() + run_.profile_steps, run_.config.steps);
    } else if (profiler_ && trainer_.num_steps() == profiled_until_) {
      profiler_->stop();
      profiler_->write_trace(run_.directory / "trace.json");
      observer_.on_trace(run_.directory / "trace.json");
      profiled_until_ = -1;
    }
  }

  void start_step() {
    try {
      trainer_.start_step();
    } catch (const c10::OutOfMemoryError&) {
      std::int64_t num_parameters = 0;
      for (const at::Tensor& parameter : trainer_.model().parameters()) num_parameters += parameter.numel();
      throw Error(ErrorCode::unsupported,
                  out_of_memory_message(run_.config, num_parameters, run_.group.size(), device_memory(run_.device)));
    }
  }

  void finish_steps(std::int64_t but) {
    try {
      while (trainer_.num_unfinished() > but) {
        const StepReport report = trainer_.finish_step();
        if (!leads()) continue;
        metrics_->write(report);
        observer_.on_step(report);
      }
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

  /// The same text each time, so that what changes is the model.
  void diagnose() {
    const auto start = std::chrono::steady_clock::now();
    const MixtureSampler sampler(run_.train, run_.config.context_length, static_cast<std::uint64_t>(run_.config.seed));
    const at::Tensor window =
        read_batch(run_.train, sampler, /*first_sample=*/0, /*batch_size=*/1).input_ids;  // [1, T]
    const at::Tensor cu_seqlens = run_.config.reset_at_documents
                                      ? document_borders(window, run_.train.tokenizer().bos()).to(run_.device)
                                      : at::Tensor();
    const models::PassOptions pass = {.compute_dtype = trainer_.train_step().pass_options().compute_dtype};
    const auto loops = evaluation::diagnose_loops(trainer_.model(), window, cu_seqlens, pass);
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
    metrics_->write(trainer_.num_steps(), loops, taken.count());
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
  std::optional<Profiler> profiler_;
  std::int64_t first_profiled_ = 0, profiled_until_ = -1;
};

}  // namespace

void train(const TrainingRun& run, TrainObserver& observer, const StopFlag& stop) {
  validate(run.config);
  require_sound_diagnostics(run);
  if (run.group.leads()) prepare_run_directory(run.directory, run.resume);
  RunningTraining(run, agreed_checkpoint(run), observer).run(stop);
}

}  // namespace comba::training
