#include <sys/mman.h>
#include <CLI/CLI.hpp>

#include <ATen/Parallel.h>
#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <vector>

#include "ablation_display.h"
#include "ablation_settings.h"
#include "base/message.h"
#include "base/number_checks.h"
#include "build_facts.h"
#include "command.h"
#include "device_flag.h"
#include "libtorch/device.h"
#include "signals.h"
#include "worker_processes.h"

namespace comba::cli {
namespace {

constexpr const char* kAblateDetails =
    R"(The file of --config describes a base model, how it is trained, and variants, each a name and keys of config.json with
other values; configs/ablation-*.toml have those of the paper. Every variant is trained once for each seed, and with a
seed all see the same text in the same order, so that differences can be taken seed by seed. Each is judged on the same
windows of held-out text: the mean cross entropy of all tokens, and of those that could be recalled from the context.

OUT/results.json gets every cell, that is a variant with a seed, as it is finished: configuration, seed, device, commit
and losses. `python -m comba.plot_ablation OUT/results.json` makes a table and a picture of it. SIGINT and SIGTERM save
the cells at hand; --resume goes on with them, also with more variants or seeds. --parallel N trains N cells at once, in
a process each; --device cuda uses all GPUs, with N processes each.

Examples:
  comba ablate --config configs/ablation-cpu.toml --data texts.data --out ablation --parallel 2 --threads 1
  comba ablate --config configs/ablation-cpu.toml --data texts.data --out ablation --seeds 1,2,3,4,5 --resume
  comba ablate --config configs/ablation-gpu.toml --data texts.data --out ablation --device cuda --parallel 4
  comba ablate --config configs/ablation-cpu.toml --data texts.data --out some --variants no-output-gate,iplr)";

struct AblateFlags {
  RunConfigFlags config;
  std::vector<std::string> variants;
  std::vector<std::int64_t> seeds;
  std::string device = "cpu";
  int parallel = 1;
  int threads = 0;
  bool resume = false;
  bool no_graph = false;
};

/// The number of the next cell, in memory that all processes see.
std::atomic<std::int64_t>& shared_counter() {
  static_assert(std::atomic<std::int64_t>::is_always_lock_free, "processes cannot share a lock");
  void* memory =
      ::mmap(nullptr, sizeof(std::atomic<std::int64_t>), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  require(memory != MAP_FAILED, ErrorCode::io, "[ablation] cannot share memory with other processes");
  return *new (memory) std::atomic<std::int64_t>(0);
}

/// The devices that are meant: "cuda" means every GPU.
std::vector<std::string> devices_of(const std::string& device) {
  if (device != "cuda") return {device};
  const int count = ask_in_process(num_gpus).value_or(1);  // where that fails, opening the device says why
  std::vector<std::string> devices;
  for (int i = 0; i < std::max(1, count); ++i) devices.push_back(concat("cuda:", i));
  return devices;
}

/// What one process does.
void work(const AblateFlags& flags, const AblationSettings& settings, const std::string& device_name, bool alone,
          std::atomic<std::int64_t>& next_cell) {
  const StopFlag& stop = stop_on_signals(/*quiet=*/!alone);
  const c10::Device device = open_device(device_name);
  if (flags.threads > 0) at::set_num_threads(flags.threads);
  const auto train = data::TokenDataset::open(settings.data, data::Split::train);
  const auto heldout = data::TokenDataset::open(settings.data, data::Split::heldout);
  AblationDisplay display(/*lines=*/!alone);
  ablation::run_cells({.ablation = settings.ablation,
                       .train = train,
                       .heldout = heldout,
                       .directory = settings.output,
                       .device = device,
                       .step = {.graphs = !flags.no_graph},
                       .provenance = {.program = program_version(), .commit = program_commit()},
                       .next_cell = next_cell},
                      display, stop);
}

void prepare(const AblateFlags& flags, const AblationSettings& settings) {
  const auto train = data::TokenDataset::open(settings.data, data::Split::train);
  const auto heldout = data::TokenDataset::open(settings.data, data::Split::heldout);
  ablation::prepare_results(settings.ablation, train, heldout, settings.output, flags.resume);
}

void run_ablate(const AblateFlags& flags) {
  RunConfig config(flags.config);
  const AblationSettings settings = read_ablation_settings(config, flags.variants, flags.seeds);
  if (flags.config.print) return fmt::print("{}", config.to_toml());
  const std::vector<std::string> devices = devices_of(flags.device);
  prepare(flags, settings);
  std::atomic<std::int64_t>& next_cell = shared_counter();
  const int num_workers = static_cast<int>(devices.size()) * flags.parallel;
  if (num_workers == 1) {
    work(flags, settings, devices[0], /*alone=*/true, next_cell);
  } else if (const std::optional<int> worker = start_workers(num_workers)) {
    return work(flags, settings, devices[static_cast<std::size_t>(*worker) % devices.size()], /*alone=*/false,
                next_cell);
  } else {
    wait_for_workers();
  }
  print_ablation(ablation::results_path(settings.output));
}

}  // namespace

void register_ablate(CLI::App& program) {
  auto flags = std::make_shared<AblateFlags>();
  CLI::App* command =
      program.add_subcommand("ablate", "Compare variants of a model, trained alike")->footer(kAblateDetails);
  add_run_config_flags(*command, flags->config);
  add_setting_flag(*command, flags->config, "--data", "data.path", "Data set of `comba data pack`");
  add_setting_flag(*command, flags->config, "--out", "output.path", "Directory of results.json");
  command->add_flag("--resume", flags->resume, "Go on with what --out holds; more cells may be asked for");
  command->add_option("--variants", flags->variants, "Only these, separated by commas, beside the first one")
      ->delimiter(',')
      ->type_name("LIST");
  command->add_option("--seeds", flags->seeds, "In place of those of the file")->delimiter(',')->type_name("LIST");
  add_device_flag(*command, flags->device);
  command->add_option("--parallel", flags->parallel, "Cells at once on each device (default: 1)")
      ->check(must_be_positive)
      ->type_name("N");
  command->add_option("--threads", flags->threads, "Threads of each process on the CPU (default: LibTorch's choice)")
      ->check(must_be_positive)
      ->type_name("N");
  command->add_flag("--no-graph", flags->no_graph, "Start the work of each step on a GPU piece by piece");
  command->callback([flags] { run_ablate(*flags); });
}

}  // namespace comba::cli
