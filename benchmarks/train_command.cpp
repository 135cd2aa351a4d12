#include "train_command.h"

#include <ATen/Parallel.h>
#include <CLI/CLI.hpp>

#include <memory>

#include "base/file.h"
#include "bench_flags.h"
#include "train_bench.h"

namespace comba::benchmarks {
namespace {

constexpr const char* kDetails =
    R"(Trains on random tokens and prints tokens a second, the median time of a step, FLOP a second (for each token, forward
and backward: 6 for each weight of a linear map, the output projection's included; 20 K V + 14 x 64 (K + V) a value head
of the delta rule; 12 times the width of attention's queries for each token seen) and the most memory that tensors took.
--breakdown adds the time of three steps by class of GPU kernel, each beside what its FLOP or bytes must take by the
GPU's data sheet.

Examples:
  comba bench train --model configs/comba-340m.json --device cuda --breakdown
  comba bench train --model configs/comba-1.3b.json --device cuda --batch-size 16 --micro-batch-size 4 --json train.json
  comba bench train --model configs/comba-tiny.json --batch-size 2 --context-length 256 --steps 3)";

struct Flags {
  TrainBench bench;
  std::filesystem::path json;
  int threads = 0;
  bool no_graph = false;
};

void run(const Flags& flags) {
  if (flags.threads > 0) at::set_num_threads(flags.threads);
  TrainBench bench = flags.bench;
  bench.graphs = !flags.no_graph;
  const std::string json = bench_training(bench);
  if (!flags.json.empty()) write_file_atomically(flags.json, json);
}

}  // namespace

void register_train(CLI::App& program) {
  auto flags = std::make_shared<Flags>();
  TrainBench& bench = flags->bench;
  CLI::App* command = program.add_subcommand("train", "training steps of a model on random tokens")->footer(kDetails);
  command->add_option("--model", bench.model, "config.json of the model")->required()->type_name("FILE");
  command->add_option("--device", bench.device, "cpu (default), cuda or cuda:N")->type_name("DEVICE");
  add_count(*command, "--batch-size", bench.config.batch_size, "Sequences a step (default 16)");
  add_count(*command, "--micro-batch-size", bench.config.micro_batch_size, "Sequences a pass (default: all)");
  add_count(*command, "--context-length", bench.config.context_length, "Tokens a sequence (default 2048)");
  command->add_option("--dtype", bench.config.dtype, "Of matrix products: bf16 (default) or fp32")->type_name("DTYPE");
  command->add_flag("--recompute-blocks", bench.config.recompute_blocks, "Compute each block again in backward");
  add_count(*command, "--steps", bench.steps, "Steps that are timed (default 20)");
  add_count(*command, "--warmup", bench.warmup, "Steps before them (default 6)");
  command->add_flag("--no-graph", flags->no_graph, "No CUDA graphs");
  command->add_flag("--breakdown", bench.breakdown, "Print the time by class of GPU kernel");
  command->add_option("--trace", bench.trace, "Write a Chrome trace of three more steps")->type_name("FILE");
  add_json_flag(*command, flags->json);
  add_threads_flag(*command, flags->threads);
  command->callback([flags] { run(*flags); });
}

}  // namespace comba::benchmarks
