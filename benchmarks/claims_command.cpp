#include "claims_command.h"

#include <ATen/Parallel.h>
#include <CLI/CLI.hpp>

#include <filesystem>
#include <memory>

#include "base/file.h"
#include "bench_flags.h"
#include "claims.h"

namespace comba::benchmarks {
namespace {

constexpr const char* kDetails =
    R"(The paper's figure of speed, measured again: Comba beside Gated DeltaNet, both by this library, and beside PyTorch's
flash attention, over lengths of 1k to 16k tokens. q, k and v are in bf16, the L2 norm of q and k and the gates are part
of the call, the backward pass computes again what it needs. On a CPU everything is in fp32, and smaller shapes are of
use. benchmarks/peers.py times the published kernels of flash-linear-attention at the same shapes (--claims).

`python -m comba.plot_claims FILE` makes a table and a picture of --json FILE.

Examples:
  comba bench claims --json claims.json
  comba bench claims --lengths 16384 --head-dims 128
  comba bench claims --device cpu --lengths 256,512,1024 --batch-size 1 --width 512 --head-dims 128)";

struct Flags {
  ClaimsBench bench;
  std::filesystem::path json;
  int threads = 0;
};

void run(const Flags& flags) {
  if (flags.threads > 0) at::set_num_threads(flags.threads);
  const std::string json = bench_claims(flags.bench);
  if (!flags.json.empty()) write_file_atomically(flags.json, json);
}

}  // namespace

void register_claims(CLI::App& program) {
  auto flags = std::make_shared<Flags>();
  ClaimsBench& bench = flags->bench;
  CLI::App* command = program.add_subcommand("claims", "the paper's claim on speed, measured again")->footer(kDetails);
  command->add_option("--device", bench.device, "cuda: the first GPU (default), or cpu")
      ->check(CLI::IsMember({"cuda", "cpu"}).description(""))
      ->type_name("cuda|cpu");
  add_counts(*command, "--lengths", bench.lengths, "Tokens of a sequence (default 1024,2048,4096,8192,16384)");
  add_counts(*command, "--head-dims", bench.head_dims, "Dims of a head (default 128,256)");
  add_count(*command, "--batch-size", bench.batch_size, "Sequences (default 8)");
  add_count(*command, "--width", bench.width, "Heads times their dim; half of it at 256 (default 2048)");
  add_count(*command, "--repetitions", bench.repetitions, "Of each row (default 12)");
  add_json_flag(*command, flags->json);
  add_threads_flag(*command, flags->threads);
  command->callback([flags] { run(*flags); });
}

}  // namespace comba::benchmarks
