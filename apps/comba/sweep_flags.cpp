#include "sweep_flags.h"

#include <CLI/CLI.hpp>

#include <ATen/Parallel.h>

#include <algorithm>

#include "base/message.h"
#include "base/nearest_name.h"
#include "base/number_checks.h"
#include "device_flag.h"
#include "models/safetensors.h"
#include "signals.h"
#include "sweep_display.h"
#include "tasks/settings.h"

namespace comba::cli {
namespace {

template <class T>
void replace_list(std::vector<T>& list, const std::vector<T>& given) {
  if (!given.empty()) list = given;
}

void replace_number(std::int64_t& number, std::int64_t given) {
  if (given > 0) number = given;
}

/// Keeps the named data sets of a setting.
void pick_data_sets(tasks::Sweep& sweep, const std::vector<std::string>& wanted) {
  std::vector<std::string> names;
  for (const auto& data : sweep.data_sets) names.push_back(data.name);
  for (const std::string& name : wanted) {
    require(std::find(names.begin(), names.end(), name) != names.end(), ErrorCode::invalid_argument,
            "[sweep] the setting ", sweep.setting, " has no data set '", name, "'; the nearest is '",
            nearest_name(name, names), "'");
  }
  std::erase_if(sweep.data_sets, [&](const tasks::DataSpec& data) {
    return !wanted.empty() && std::find(wanted.begin(), wanted.end(), data.name) == wanted.end();
  });
}

void change_segments(const std::string& task, std::vector<tasks::SegmentSpec>& segments,
                     const std::vector<std::string>& given) {
  if (given.empty()) return;
  segments.clear();
  for (const std::string& text : given) segments.push_back(tasks::parse_segment(task, text));
}

void apply(const SweepFlags& flags, tasks::Sweep& sweep) {
  pick_data_sets(sweep, flags.data_sets);
  replace_list(sweep.mixers, flags.mixers);
  replace_list(sweep.hidden_sizes, flags.sizes);
  replace_list(sweep.learning_rates, flags.rates);
  replace_number(sweep.num_heads, flags.heads);
  replace_number(sweep.num_layers, flags.layers);
  replace_number(sweep.training.epochs, flags.epochs);
  if (flags.seed >= 0) sweep.training.seed = static_cast<std::uint64_t>(flags.seed);
  if (flags.stop_accuracy >= 0) sweep.training.stop_accuracy = flags.stop_accuracy;
  for (tasks::DataSpec& data : sweep.data_sets) {
    change_segments(data.task, data.train, flags.train);
    change_segments(data.task, data.test, flags.test);
    replace_number(data.vocab, flags.vocab);
    replace_number(data.batch_size, flags.batch_size);
  }
}

/// Inputs and labels of every segment: "64x4.train.0.inputs" and so on.
void dump(const tasks::Sweep& sweep, const std::filesystem::path& path) {
  models::NamedTensors tensors;
  const auto add = [&](const std::string& prefix, const std::vector<tasks::Segment>& segments) {
    for (std::size_t i = 0; i < segments.size(); ++i) {
      tensors[concat(prefix, i, ".inputs")] = segments[i].inputs.contiguous();
      tensors[concat(prefix, i, ".labels")] = segments[i].labels();
    }
  };
  for (const tasks::DataSpec& spec : sweep.data_sets) {
    const tasks::TaskData data = tasks::make_data(spec);
    add(spec.name + ".train.", data.train);
    add(spec.name + ".test.", data.test);
  }
  models::write_safetensors(path, tensors);
}

}  // namespace

void add_sweep_flags(CLI::App& command, SweepFlags& flags) {
  const auto list = [&](const char* name, auto& values, const char* description) {
    return command.add_option(name, values, description)->delimiter(',');
  };
  command.add_option("--out", flags.out, "Directory of results.json")->type_name("DIR");
  command.add_flag("--resume", flags.resume, "Go on with what --out holds; more cells may be asked for");
  list("--mixers", flags.mixers, "What is compared, separated by commas: NAME[:key=value]...")->type_name("LIST");
  list("--sizes", flags.sizes, "Widths of the models")->type_name("LIST");
  list("--learning-rates", flags.rates, "Each is tried with each width")->type_name("LIST");
  const auto number = [&](const char* name, auto& value, const char* description) {
    command.add_option(name, value, description)->check(must_be_positive)->type_name("N");
  };
  number("--heads", flags.heads, "Heads, of size width / heads");
  number("--layers", flags.layers, "Layers, the convolution at the bottom included");
  number("--epochs", flags.epochs, "Most epochs");
  number("--batch-size", flags.batch_size, "Examples a step");
  number("--vocab", flags.vocab, "Tokens of the task");
  list("--train", flags.train, "Other segments to learn from: LENGTHxITEMSxEXAMPLES, or LENGTHxEXAMPLES")
      ->type_name("LIST");
  list("--test", flags.test, "Other segments to test")->type_name("LIST");
  command.add_option("--stop-accuracy", flags.stop_accuracy, "End a cell above it (default: 0.99)")
      ->check(CLI::Range(0.0, 1.0).description(""))
      ->type_name("X");
  command.add_option("--seed", flags.seed, "Of weights and dropout (default: 123)")
      ->check(must_not_be_negative)
      ->type_name("N");
  add_device_flag(command, flags.device);
  number("--threads", flags.threads, "Threads on the CPU (default: LibTorch's choice)");
  command.add_option("--dump", flags.dump, "Write the data and train nothing")->type_name("FILE");
}

void run_sweep_command(tasks::Sweep sweep, const SweepFlags& flags) {
  apply(flags, sweep);
  if (!flags.dump.empty()) return dump(sweep, flags.dump);
  require(!flags.out.empty(), ErrorCode::invalid_argument, "needs --out DIR (or --dump FILE)");
  const StopFlag& stop = stop_on_signals();
  const c10::Device device = open_device(flags.device);
  if (flags.threads > 0) at::set_num_threads(flags.threads);
  SweepDisplay display;
  tasks::run_sweep(sweep, flags.out, flags.resume, device, display, stop);
  print_results(tasks::results_path(flags.out));
}

}  // namespace comba::cli
