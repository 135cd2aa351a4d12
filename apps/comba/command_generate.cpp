#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include <ATen/Parallel.h>

#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "comba/error.h"
#include "command.h"
#include "generation/generate.h"
#include "models/checkpoint.h"
#include "signals.h"
#include "training/run_directory.h"
#include "training/training_checkpoint.h"
#include "utf8_stream.h"

namespace comba::cli {
namespace {

constexpr const char* kGenerateDetails =
    R"(Prints the prompt and what the model makes of it, each token as soon as it is known, until the model ends the document
or --max-tokens are there. Time and memory a token do not grow with the length of the text.

Examples:
  comba generate --model run --prompt 'template<typename _Tp>' --max-tokens 400
  comba generate --model run --prompt '#include <' --temperature 0.7 --top-p 0.9 --seed 3
  comba generate --model run --prompt '' --temperature 0)";

struct GenerateFlags {
  std::filesystem::path model;
  std::string prompt;
  generation::GenerateOptions options;
  int threads = 0;
};

void print_now(const std::string& text) {
  fmt::print("{}", text);
  std::fflush(stdout);
}

void run_generate(GenerateFlags flags) {
  const generation::TokenSampler check(flags.options.sampling);  // complains before anything is read or printed
  const StopFlag& stop = stop_on_signals();
  if (flags.threads > 0) at::set_num_threads(flags.threads);
  const std::filesystem::path directory = training::find_model_directory(flags.model);
  const data::Tokenizer tokenizer = training::load_tokenizer(directory);
  const auto model = models::load_model(directory);
  std::vector<std::int64_t> prompt = {tokenizer.bos()};
  for (const std::int64_t id : tokenizer.encode(flags.prompt)) prompt.push_back(id);
  flags.options.vocab = tokenizer.vocab();
  flags.options.stop_token = tokenizer.bos();  // the next document begins

  Utf8Stream text;
  print_now(text.feed(flags.prompt));
  generation::generate(*model, prompt, flags.options, [&](std::int64_t token) {
    print_now(text.feed(tokenizer.decode(std::span(&token, 1))));
    return !stop.requested();
  });
  print_now(text.finish() + '\n');
  if (stop.requested()) throw Error(ErrorCode::interrupted, "[generate] stopped by a signal");
}

}  // namespace

void register_generate(CLI::App& program) {
  auto flags = std::make_shared<GenerateFlags>();
  auto& options = flags->options;
  CLI::App* command = program.add_subcommand("generate", "Continue a text")->footer(kGenerateDetails);
  command->add_option("--model", flags->model, "Model directory, or a run (its newest checkpoint)")
      ->required()
      ->type_name("DIR");
  command->add_option("--prompt", flags->prompt, "Text to continue")->required()->type_name("TEXT");
  command->add_option("--max-tokens", options.max_tokens, "Tokens to generate, at most (default 256)")
      ->check(CLI::NonNegativeNumber.description(""))
      ->type_name("N");
  command
      ->add_option("--temperature", options.sampling.temperature,
                   "Divides the logits (default 1); 0: always the likeliest")
      ->type_name("X");
  command->add_option("--top-k", options.sampling.top_k, "Draw from the N likeliest tokens; 0: all")->type_name("N");
  command->add_option("--top-p", options.sampling.top_p, "Draw from the likeliest tokens that reach this probability")
      ->type_name("X");
  command->add_option("--seed", options.sampling.seed, "The same seed gives the same text (default 0)")->type_name("N");
  command->add_option("--threads", flags->threads, "Threads; 0: as many as LibTorch takes by itself")
      ->check(CLI::NonNegativeNumber.description(""))
      ->type_name("N");
  command->callback([flags] { run_generate(*flags); });
}

}  // namespace comba::cli
