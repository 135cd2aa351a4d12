#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include <ATen/Parallel.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/message.h"
#include "base/number_checks.h"
#include "command.h"
#include "device_flag.h"
#include "generation/generate.h"
#include "generation/state_file.h"
#include "generation_output.h"
#include "json_lines.h"
#include "models/checkpoint.h"
#include "signals.h"
#include "training/run_directory.h"
#include "training/training_checkpoint.h"
#include "weights_flag.h"

namespace comba::cli {
namespace {

constexpr const char* kGenerateDetails =
    R"(Prints the prompt and what the model makes of it, each token as soon as it is known, until the model ends the document,
a stop string comes up (it is not printed) or --max-tokens are there. Time and memory a token do not grow with the
length of the text.

--json prints one object a text instead: index, prompt, text (what was generated), prompt_tokens, tokens (how many were
generated), finish (end: the model ended the document; stop: a stop string; length: --max-tokens; interrupted), seconds
and tokens_per_second (of generating, without reading the prompt). --prompts reads one object a line, with the text
under "prompt"; several are continued side by side, and the results come in the order of the file.

--weights int8 keeps linear maps and embedding as whole numbers from -127 to 127 with a scale a row. On the CPU a token
then takes less time; on a GPU memory is saved, but no step is recorded as a graph, which takes many times as long.

--state-out keeps what the model knows of the text, prompt and continuation, in a small file. --state-in goes on from
there; a prompt is then what follows, and may be left out.

Examples:
  comba generate --model run --prompt 'template<typename _Tp>' --max-tokens 400
  comba generate --model run --prompt '#include <' --temperature 0.7 --top-p 0.9 --seed 3 --stop '>'
  comba generate --model run --prompts prompts.jsonl --temperature 0 --batch 16 > texts.jsonl
  comba generate --model run --prompt-file book.txt --max-tokens 0 --no-echo --state-out book.state
  comba generate --model run --state-in book.state --prompt 'In short,' --min-p 0.1)";

struct GenerateFlags {
  std::filesystem::path model, prompt_file, prompts, state_in, state_out;
  std::optional<std::string> prompt;
  std::vector<std::string> stop;
  generation::GenerateOptions options;
  bool json = false;
  bool no_echo = false;
  std::string python = "python3";
  int threads = 0;
  std::optional<std::string> dtype;
  std::optional<std::int64_t> chunk_length;
  std::string device = "cpu";
  std::string weights = "float";
};

/// Moves the weights to the dtype that was asked for: bf16 on a GPU if none was. Also what else depends on the device.
void prepare(models::CausalLM& model, GenerateFlags& flags) {
  const bool on_gpu = model.device().is_cuda();
  const std::string dtype = flags.dtype.value_or(on_gpu ? "bf16" : "f32");
  if (dtype == "bf16") model.to(at::kBFloat16);
  keep_weights_as(flags.weights, model);
  flags.options.chunk_length = flags.chunk_length.value_or(on_gpu ? 8192 : 1024);
}

/// The texts to be continued, in order.
std::vector<std::string> read_prompts(const GenerateFlags& flags) {
  if (!flags.prompts.empty()) {
    std::vector<std::string> prompts;
    for_each_json_line(flags.prompts, [&](const nlohmann::json& object, const std::string& where) {
      prompts.push_back(text_of(object, "prompt", where));
    });
    return prompts;
  }
  if (!flags.prompt_file.empty()) return {read_input(flags.prompt_file)};
  require(flags.prompt || !flags.state_in.empty(), ErrorCode::invalid_argument,
          "[generate] needs something to continue: --prompt, --prompt-file, --prompts or --state-in");
  return {flags.prompt.value_or("")};
}

void check(const GenerateFlags& flags) {
  const generation::TokenSampler sampler(flags.options.sampling);
  const generation::StopStrings stop(flags.stop);
  if (!flags.state_out.empty()) const AtomicFile probe(flags.state_out);  // a long text must not be read in vain
}

void run_generate(GenerateFlags flags) {
  check(flags);  // complains before anything is read or printed
  const StopFlag& stop = stop_on_signals();
  if (flags.threads > 0) at::set_num_threads(flags.threads);
  const std::vector<std::string> texts = read_prompts(flags);
  const std::filesystem::path directory = training::find_model_directory(flags.model);
  const data::Tokenizer tokenizer = training::load_tokenizer(directory, flags.python);
  const auto model = models::load_model(directory);
  model->to(open_device(flags.device));
  prepare(*model, flags);
  flags.options.vocab = tokenizer.vocab();
  flags.options.stop_token = tokenizer.bos();  // the next document begins
  flags.options.keep_states = !flags.state_out.empty();

  std::optional<generation::TextState> before;
  if (!flags.state_in.empty()) before = generation::load_state(*model, tokenizer.to_json(), flags.state_in);
  std::vector<generation::Prompt> prompts;
  for (const std::string& text : texts) {
    generation::Prompt prompt{.tokens = tokenizer.encode(text, /*starts_document=*/!before),
                              .after = before ? &*before : nullptr};
    if (!before) prompt.tokens.insert(prompt.tokens.begin(), tokenizer.bos());
    prompts.push_back(std::move(prompt));
  }

  GenerationOutput output({.texts = texts,
                           .prompts = prompts,
                           .tokenizer = tokenizer,
                           .stop_strings = flags.stop,
                           .as_json = flags.json || !flags.prompts.empty(),
                           .echo = !flags.no_echo},
                          stop);
  const auto results = generation::generate(*model, prompts, flags.options, output.events());
  if (!flags.state_out.empty()) {
    generation::save_state(results[0].state.value(), *model, tokenizer.to_json(), flags.state_out);
  }
  if (stop.requested()) throw Error(ErrorCode::interrupted, "[generate] stopped by a signal");
}

void add_sampling_flags(CLI::App& command, generation::SamplingOptions& sampling) {
  command.add_option("--temperature", sampling.temperature, "Divides the logits (default 1); 0: always the likeliest")
      ->type_name("X");
  command.add_option("--top-k", sampling.top_k, "Draw from the N likeliest tokens; 0: all")->type_name("N");
  command.add_option("--top-p", sampling.top_p, "Draw from the likeliest tokens that reach this probability")
      ->type_name("X");
  command.add_option("--min-p", sampling.min_p, "Draw from the tokens at least X times as likely as the likeliest")
      ->type_name("X");
  command
      .add_option("--repetition-penalty", sampling.repetition_penalty,
                  "Above 1, recent tokens become less likely (default 1)")
      ->type_name("X");
  command
      .add_option("--repetition-window", sampling.repetition_window,
                  "How many tokens are recent, those of the prompt included (default 64)")
      ->type_name("N");
  command.add_option("--seed", sampling.seed, "The same seed gives the same text (default 0)")->type_name("N");
}

/// What to continue, and where the state comes from and goes to.
void add_text_flags(CLI::App& command, GenerateFlags& flags) {
  CLI::Option* text = command.add_option("--prompt", flags.prompt, "Text to continue")->type_name("TEXT");
  CLI::Option* file = command.add_option("--prompt-file", flags.prompt_file, "The text as a file; -: standard input")
                          ->type_name("FILE")
                          ->excludes(text);
  CLI::Option* many = command.add_option("--prompts", flags.prompts, "Many texts as JSON lines; -: standard input")
                          ->type_name("FILE")
                          ->excludes(text)
                          ->excludes(file);
  command.add_option("--state-in", flags.state_in, "Go on after the text of this state")
      ->type_name("FILE")
      ->excludes(many);
  command.add_option("--state-out", flags.state_out, "Keep the state after the text in this file")
      ->type_name("FILE")
      ->excludes(many);
}

}  // namespace

void register_generate(CLI::App& program) {
  auto flags = std::make_shared<GenerateFlags>();
  auto& options = flags->options;
  CLI::App* command = program.add_subcommand("generate", "Continue a text")->footer(kGenerateDetails);
  command->add_option("--model", flags->model, "Model directory, or a run (its newest checkpoint)")
      ->required()
      ->type_name("DIR");
  add_text_flags(*command, *flags);
  command->add_option("--max-tokens", options.max_tokens, "Tokens to generate, at most (default 256)")
      ->check(must_not_be_negative)
      ->type_name("N");
  command->add_option("--stop", flags->stop, "Text that ends the text; may be given again")
      ->type_name("TEXT")
      ->allow_extra_args(false);
  add_sampling_flags(*command, options.sampling);
  command->add_option("--batch", options.batch_size, "Texts continued side by side, at most (default 8)")
      ->check(must_be_positive)
      ->type_name("N");
  command->add_option("--chunk", flags->chunk_length, "Tokens of a prompt read at once (default 1024, on a GPU 8192)")
      ->check(must_be_positive)
      ->type_name("N");
  command->add_option("--dtype", flags->dtype, "Of the weights: f32 or bf16 (default f32, on a GPU bf16)")
      ->check(CLI::IsMember({"f32", "bf16"}).description(""))
      ->type_name("f32|bf16");
  add_weights_flag(*command, flags->weights);
  command->add_flag("--no-echo", flags->no_echo, "Do not print the prompt");
  command->add_flag("--json", flags->json, "Print one JSON object a text");
  command->add_option("--python", flags->python, "Python for the texts of a tokenizer.json (default python3)")
      ->type_name("PROGRAM");
  command->add_option("--threads", flags->threads, "Threads; 0: as many as LibTorch takes by itself")
      ->check(must_not_be_negative)
      ->type_name("N");
  add_device_flag(*command, flags->device);
  command->callback([flags] { run_generate(*flags); });
}

}  // namespace comba::cli
