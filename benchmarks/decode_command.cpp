#include "decode_command.h"

#include <CLI/CLI.hpp>

#include <filesystem>
#include <memory>

#include "base/file.h"
#include "base/number_checks.h"
#include "bench_flags.h"
#include "decode_bench.h"

namespace comba::benchmarks {
namespace {

constexpr const char* kDetails =
    R"(Continues texts with a model of random weights in bf16, and prints for each batch size the time a token, that is
of one step of all texts, the bytes that it must move (each weight once, each state read and written once) and
how near that comes to a copy of the GPU. Steps are timed as `comba generate` makes them: drawn on the GPU, read
by the host one step later. --prompt-tokens also times the reading of a prompt, beside its matrix products
alone.

Examples:
  comba bench decode --model configs/comba-340m.json --device cuda --batch-size 1,8,32,128 --prompt-tokens 32768
  comba bench decode --model configs/comba-1.3b.json --device cuda --state-dtype bf16 --json decode.json)";

struct Flags {
  DecodeBench bench;
  std::filesystem::path json;
};

void run(const Flags& flags) {
  const std::string json = bench_decode(flags.bench);
  if (!flags.json.empty()) write_file_atomically(flags.json, json);
}

}  // namespace

void register_decode(CLI::App& program) {
  auto flags = std::make_shared<Flags>();
  DecodeBench& bench = flags->bench;
  CLI::App* command = program.add_subcommand("decode", "generation by a model, token by token")->footer(kDetails);
  command->add_option("--model", bench.model, "config.json of the model")->required()->type_name("FILE");
  command->add_option("--device", bench.device, "cuda: the first GPU (default)")
      ->check(CLI::IsMember({"cuda"}).description(""))
      ->type_name("cuda");
  add_counts(*command, "--batch-size", bench.batch_sizes, "Texts side by side; several with commas (default 1,128)");
  command->add_option("--state-dtype", bench.state_dtype, "Of the recurrent states: f32 (default) or bf16")
      ->check(CLI::IsMember({"f32", "bf16"}).description(""))
      ->type_name("f32|bf16");
  add_count(*command, "--prompt-tokens", bench.prompt_tokens, "Also time the reading of a prompt of so many tokens");
  add_count(*command, "--chunk", bench.chunk_length, "Tokens of the prompt read at once (default 8192)");
  command->add_option("--temperature", bench.temperature, "Of the draws; 0: always the likeliest (default 1)")
      ->check(must_not_be_negative)
      ->type_name("X");
  add_count(*command, "--steps", bench.steps, "Steps of each sample, of which there are 9 (default 32)");
  add_json_flag(*command, flags->json);
  command->callback([flags] { run(*flags); });
}

}  // namespace comba::benchmarks
