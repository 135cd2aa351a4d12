#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include <ATen/Parallel.h>

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/message.h"
#include "command.h"
#include "data/token_dataset.h"
#include "evaluation/evaluate.h"
#include "format.h"
#include "models/checkpoint.h"
#include "progress.h"
#include "training/run_directory.h"
#include "training/training_checkpoint.h"

namespace comba::cli {
namespace {

constexpr const char* kEvalDetails =
    R"(Each document is read from its first to its last byte, with all of it before a byte as that byte's context. The figure
is what a compressor driven by the model would need: bits per byte.

Examples:
  comba eval --model run --data headers.data
  comba eval --model run/checkpoint-000500 --data headers.data --split train --json
  comba eval --model run --data headers.data --untrained)";

struct EvalFlags {
  std::filesystem::path model;
  std::filesystem::path data;
  data::Split split = data::Split::heldout;
  bool untrained = false;
  bool json = false;
  int threads = 0;
};

std::shared_ptr<models::CausalLM> load(const EvalFlags& flags, const std::filesystem::path& directory) {
  if (!flags.untrained) return models::load_model(directory);
  const auto seed = training::read_training_record(directory).config.seed;
  auto model = std::make_shared<models::CausalLM>(models::load_model_config(directory / "config.json"));
  model->initialize(static_cast<std::uint64_t>(seed));
  return model;
}

void print_json(const EvalFlags& flags, const std::filesystem::path& directory,
                const evaluation::EvaluationResult& result) {
  nlohmann::ordered_json json;
  json["model"] = directory.string();
  json["untrained"] = flags.untrained;
  json["data"] = flags.data.string();
  json["split"] = name_of(flags.split);
  json["documents"] = result.documents;
  json["tokens"] = result.tokens;
  json["bytes"] = result.bytes;
  json["nats"] = result.nats;
  json["perplexity"] = result.perplexity();
  json["bits_per_byte"] = result.bits_per_byte();
  fmt::print("{}\n", json.dump(2));
}

void print_table(const EvalFlags& flags, const std::filesystem::path& directory,
                 const evaluation::EvaluationResult& result, double seconds) {
  fmt::print("{:<12}{}{}\n", "model", directory.string(), flags.untrained ? " (untrained)" : "");
  fmt::print("{:<12}{} of {}\n", "split", name_of(flags.split), flags.data.string());
  fmt::print("{:<12}{} in {} documents, read in {}\n", "bytes", format_count(result.bytes),
             format_count(result.documents), format_duration(seconds));
  fmt::print("{:<12}{:.3f} a token\n", "perplexity", result.perplexity());
  fmt::print("{:<12}{:.4f}\n", "bits/byte", result.bits_per_byte());
}

void run_eval(const EvalFlags& flags) {
  if (flags.threads > 0) at::set_num_threads(flags.threads);
  const std::filesystem::path directory = training::find_model_directory(flags.model);
  const auto dataset = data::TokenDataset::open(flags.data, flags.split);
  const auto tokenizer = training::load_tokenizer(directory);
  require(tokenizer.to_json() == dataset.tokenizer().to_json(), ErrorCode::invalid_argument,
          "[eval] model and data must have one tokenizer; got ", tokenizer.to_json(), " and ",
          dataset.tokenizer().to_json());
  const auto model = load(flags, directory);

  const auto start = std::chrono::steady_clock::now();
  const auto elapsed = [&] { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(); };
  evaluation::EvaluationResult result;
  {
    ProgressLine progress;
    const auto show = [&](std::int64_t bytes) {
      progress.update(fmt::format("{} of {}, {}/s", format_bytes(bytes), format_bytes(dataset.num_bytes()),
                                  format_bytes(static_cast<std::int64_t>(static_cast<double>(bytes) / elapsed()))));
    };
    result = evaluation::evaluate(*model, dataset, {.on_progress = show});
  }
  flags.json ? print_json(flags, directory, result) : print_table(flags, directory, result, elapsed());
}

}  // namespace

void register_eval(CLI::App& program) {
  auto flags = std::make_shared<EvalFlags>();
  CLI::App* command = program.add_subcommand("eval", "Score a model on a data set")->footer(kEvalDetails);
  command->add_option("--model", flags->model, "Model directory, or a run (its newest checkpoint)")
      ->required()
      ->type_name("DIR");
  command->add_option("--data", flags->data, "Data set of `comba data pack`")->required()->type_name("DIR");
  const auto split = std::make_shared<std::string>("heldout");
  command->add_option("--split", *split, "What to score: heldout (default) or train")
      ->check(CLI::IsMember({"heldout", "train"}).description(""))
      ->type_name("heldout|train");
  command->add_flag("--untrained", flags->untrained, "Score the model as it was before its first step");
  command->add_flag("--json", flags->json, "Print one JSON object");
  command->add_option("--threads", flags->threads, "Threads; 0: as many as LibTorch takes by itself")
      ->check(CLI::NonNegativeNumber.description(""))
      ->type_name("N");
  command->callback([flags, split] {
    flags->split = *split == "train" ? data::Split::train : data::Split::heldout;
    run_eval(*flags);
  });
}

}  // namespace comba::cli
