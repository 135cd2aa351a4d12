#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include <ATen/Parallel.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <memory>
#include <numbers>
#include <optional>
#include <string>

#include "base/environment.h"
#include "base/number_checks.h"
#include "command.h"
#include "device_flag.h"
#include "distributed/launch.h"
#include "format.h"
#include "libtorch/device.h"
#include "libtorch/gpu_rates.h"
#include "models/training_flops.h"
#include "progress.h"
#include "run_config.h"
#include "run_together.h"
#include "signals.h"
#include "train_settings.h"
#include "training/train.h"
#include "training_data.h"
#include "utf8_stream.h"

namespace comba::cli {
namespace {

constexpr const char* kTrainDetails =
    R"(The output directory gets metrics.jsonl and checkpoints, which are model directories in the Hugging Face layout. SIGINT
and SIGTERM end the run after the step at hand, with a checkpoint; --resume then goes on as if nothing had happened: the
same settings, data, seed and number of threads give the same bits. Of the checkpoints, the newest are kept and the best
of those that were evaluated, which OUT/best means. --init begins with the weights of another model, whose config.json
is then the [model] of the run.

Several data sets of one tokenizer are mixed in the run file, in shares of the tokens trained on; each is read again, in
another order, as often as that takes:
  [data]
  path = "web.data"                           # for its held-out text
  mixture = [{path = "web.data", weight = 0.8}, {path = "code.data", weight = 0.2}]

Started N times by torchrun, or by Slurm's srun with MASTER_ADDR and MASTER_PORT set, N processes share each batch of
batch_size sequences and the optimizer's state. The result is that of one process but for rounding, any number of them
goes on from a checkpoint, and the first of them writes. A signal to one, or to torchrun, stops all after the same step.

With --device cuda a GPU computes, in a build with CUDA, and with torchrun each process has the one of its LOCAL_RANK. A
checkpoint can be continued anywhere; the bits are the same only on the same device, and on a GPU with --deterministic.

Examples:
  comba train --config configs/demo.toml --data headers.data --out run
  comba train --config configs/demo.toml --data headers.data --out run --resume
  comba train --config configs/demo.toml --set train.seed=7 --set model.hidden_size=192 --data headers.data --out run7
  comba train --config configs/demo.toml --data headers.data --out run --print-config > run.toml
  torchrun --no-python --nproc-per-node 2 comba train --config configs/demo.toml --data headers.data --out run
  comba train --init run --data letters.data --out tuned --set train.steps=100 --set train.learning_rate=1e-4)";

struct TrainFlags {
  RunConfigFlags config;
  bool resume = false;
  bool deterministic = false;
  bool no_graph = false;
  std::int64_t profile_steps = 0;
};

/// Shows a run on the terminal.
class TrainDisplay : public training::TrainObserver {
 public:
  TrainDisplay(const TrainSettings& settings, const TrainingData& data, int num_processes, c10::Device device)
      : device_(device),
        rates_(device_rates(device)),
        flop_per_token_(models::training_flops_per_token(settings.model, settings.train.context_length).total()),
        num_processes_(num_processes),
        num_steps_(settings.train.steps),
        tokens_per_step_(settings.train.batch_size * settings.train.context_length),
        tokens_per_byte_(data.tokens_per_byte()),
        data_(data.description(num_steps_ * tokens_per_step_)) {}

  void on_start(const models::CausalLM& model, std::int64_t first_step) override {
    std::int64_t num_parameters = 0;
    for (const at::Tensor& parameter : model.parameters()) num_parameters += parameter.numel();
    const std::string processes = num_processes_ > 1 ? fmt::format("{} processes, each with ", num_processes_) : "";
    const std::string where =
        device_.is_cpu() ? format_counted(at::get_num_threads(), "thread") : fmt::format("a GPU ({})", rates_.name);
    progress_.note(fmt::format("model: {} parameters; {} of {} tokens; {}{}", format_count(num_parameters),
                               format_counted(num_steps_, "step"), format_count(tokens_per_step_), processes, where));
    progress_.note(data_);
    if (first_step > 0) {
      progress_.note(fmt::format("{} {}",
                                 first_step < num_steps_ ? "going on after step" : "nothing is left to do after step",
                                 format_count(first_step)));
    }
    first_step_ = first_step;
    start_ = Clock::now();
  }

  void on_step(const training::StepReport& report) override {
    const double seconds = std::chrono::duration<double>(Clock::now() - start_).count();
    const auto steps_made = static_cast<double>(report.step - first_step_);
    const auto steps_left = static_cast<double>(num_steps_ - report.step);
    smooth_loss_ += (report.loss - smooth_loss_) / std::min(steps_made, kSmoothedSteps);
    const double tokens_per_second = steps_made * static_cast<double>(tokens_per_step_) / seconds;
    const std::string text = fmt::format(
        "step {}/{}  loss {:.4f}  {:.3f} bits/byte  {} tokens/s  {}{}", report.step, num_steps_, smooth_loss_,
        smooth_loss_ / std::numbers::ln2 * tokens_per_byte_, format_count(static_cast<std::int64_t>(tokens_per_second)),
        use_of_gpu(tokens_per_second),
        steps_left > 0 ? format_duration(seconds / steps_made * steps_left) + " left" : format_duration(seconds));
    steps_left > 0 ? progress_.update(text) : progress_.finish(text);
  }

  void on_evaluation(std::int64_t step, const evaluation::EvaluationResult& heldout) override {
    progress_.note(fmt::format("step {}: {:.4f} bits/byte on held-out text", step, heldout.bits_per_byte()));
  }

  void on_sample(std::int64_t step, const std::string& text) override {
    Utf8Stream whole_characters;
    progress_.note(fmt::format("step {}: {}", step, whole_characters.feed(text) + whole_characters.finish()));
  }

  void on_checkpoint(const std::filesystem::path& directory) override {
    progress_.note(fmt::format("saved {}", directory.string()));
  }

  void on_warning(const std::string& text) override { progress_.note("warning: " + text); }

  void on_trace(const std::filesystem::path& path) override {
    progress_.note(fmt::format("profile in {} (chrome://tracing or Perfetto shows it)", path.string()));
  }

 private:
  using Clock = std::chrono::steady_clock;

  /// "41.0% MFU  23.10 GiB  ", or nothing on the CPU.
  std::string use_of_gpu(double tokens_per_second) const {
    if (device_.is_cpu()) return {};
    const double flop_per_second = flop_per_token_ * tokens_per_second / num_processes_;
    const std::string rate = rates_.flop_per_second > 0
                                 ? fmt::format("{:.1f}% MFU", flop_per_second / rates_.flop_per_second * 100)
                                 : fmt::format("{:.1f} TFLOP/s", flop_per_second / 1e12);
    return fmt::format("{}  {:.2f} GiB  ", rate, static_cast<double>(peak_memory_bytes(device_)) / (1 << 30));
  }

  static constexpr double kSmoothedSteps = 50;  // the loss of one small batch says little

  c10::Device device_;
  DeviceRates rates_;
  double flop_per_token_;
  int num_processes_;
  std::int64_t num_steps_;
  std::int64_t tokens_per_step_;
  double tokens_per_byte_;
  std::string data_;
  std::int64_t first_step_ = 0;
  double smooth_loss_ = 0;
  Clock::time_point start_;
  ProgressLine progress_;
};

void train_in_group(const TrainFlags& flags, const TrainSettings& settings, c10::Device device, const StopFlag& stop,
                    distributed::ProcessGroup& group) {
  if (settings.threads > 0) at::set_num_threads(static_cast<int>(settings.threads));
  const TrainingData data(settings);
  TrainDisplay display(settings, data, group.size(), device);
  training::train({.model = settings.model,
                   .config = settings.train,
                   .train = data.mixture(),
                   .heldout = data.heldout(),
                   .directory = settings.output,
                   .initial_model = settings.initial_model,
                   .device = device,
                   .step = {.graphs = !flags.no_graph, .zero_stage = static_cast<int>(settings.zero_stage)},
                   .diagnostics_interval = settings.diagnostics,
                   .profile_steps = flags.profile_steps,
                   .resume = flags.resume,
                   .group = group},
                  display, stop);
}

void run_train(const TrainFlags& flags) {
  const distributed::Launch launch = distributed::read_launch(environment_variable);
  const StopFlag& stop = stop_on_signals(/*quiet=*/launch.rank != 0);
  std::optional<RunConfig> config;
  TrainSettings settings;
  c10::Device device = c10::kCPU;
  const auto prepare = [&] {  // among all processes: what goes wrong is told once, and ends all
    config.emplace(flags.config);
    settings = read_train_settings(*config);
    if (flags.config.print) return device;
    if (flags.deterministic) compute_deterministically();
    return device = open_device(settings.device, launch.local_rank);
  };
  run_together(launch, stop, prepare, [&](distributed::ProcessGroup& group) {
    if (!flags.config.print) return train_in_group(flags, settings, device, stop, group);
    if (group.leads()) fmt::print("{}", config->to_toml());
  });
}

}  // namespace

void register_train(CLI::App& program) {
  auto flags = std::make_shared<TrainFlags>();
  CLI::App* command = program.add_subcommand("train", "Train a language model")->footer(kTrainDetails);
  add_run_config_flags(*command, flags->config);
  add_setting_flag(*command, flags->config, "--data", "data.path", "Data set of `comba data pack`");
  add_setting_flag(*command, flags->config, "--init", "model.init",
                   "Begin with the weights of this model directory or run");
  add_setting_flag(*command, flags->config, "--out", "output.path", "Directory of the run");
  command->add_flag("--resume", flags->resume, "Go on from the newest checkpoint of --out");
  add_setting_flag(*command, flags->config, "--device", "train.device",
                   "Where to compute: cpu (default), cuda (a GPU) or cuda:N", "DEVICE");
  command->add_flag("--deterministic", flags->deterministic, "The same bits each time on a GPU too; slower");
  command->add_flag("--no-graph", flags->no_graph, "Start the work of each step on a GPU piece by piece");
  add_setting_flag(*command, flags->config, "--diagnostics", "train.diagnostics_interval",
                   "Every N steps, write to metrics.jsonl what the control loops do", "N");
  command->add_option("--profile", flags->profile_steps, "Write what N steps do to OUT/trace.json")
      ->check(must_be_positive)
      ->type_name("N");
  command->callback([flags] { run_train(*flags); });
}

}  // namespace comba::cli
