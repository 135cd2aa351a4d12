#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include <ATen/Parallel.h>

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/file_content.h"
#include "base/message.h"
#include "base/number_checks.h"
#include "command.h"
#include "data/token_dataset.h"
#include "device_flag.h"
#include "evaluation/choices.h"
#include "evaluation/evaluate.h"
#include "evaluation/last_word.h"
#include "format.h"
#include "json_lines.h"
#include "models/checkpoint.h"
#include "progress.h"
#include "training/run_directory.h"
#include "training/training_checkpoint.h"
#include "weights_flag.h"

namespace comba::cli {
namespace {

constexpr const char* kEvalDetails =
    R"(--data scores the documents of a data set: loss, perplexity and bits per byte, what a compressor driven by the model
would need. Each document is read from its first to its last byte, with all of it before a byte as that byte's context
(--carry-state, the default), or cut into windows that know nothing of each other (--window N). Prompts, which training
does not learn, are read and not scored.

--last-word scores the last words of texts, as LAMBADA does, one JSON object a line:
  {"text": "She heard it from the sea"}
The word is what follows the last space. Accuracy counts those of which every token is the likeliest one; perplexity is
that of a word.

--choices scores questions by the likelihood of their answers, one JSON object a line, the right answer counted from 0:
  {"context": "Two and two are", "choices": [" four.", " a crowd."], "answer": 0}
A choice is appended to the context as it is, so that a space between them is its own. Normalized accuracy goes by the
likelihood a byte of the choice (acc_norm of lm-evaluation-harness).

Examples:
  comba eval --model run --data headers.data
  comba eval --model run/checkpoint-000500 --data headers.data --split train --window 2048 --json
  comba eval --model run --data headers.data --untrained
  comba eval --model run --last-word lambada.jsonl
  comba eval --model run --choices arc.jsonl --json)";

using Clock = std::chrono::steady_clock;
using Json = nlohmann::ordered_json;

struct EvalFlags {
  std::filesystem::path model, data, last_word, choices;
  data::Split split = data::Split::heldout;
  std::int64_t window = 0;
  bool untrained = false;
  bool documents = false;
  bool json = false;
  bool score_prompts = false;
  std::string python = "python3";
  int threads = 0;
  std::string device = "cpu";
  std::string weights = "float";
};

/// What is scored.
struct Subject {
  std::filesystem::path directory;
  data::Tokenizer tokenizer;
  std::shared_ptr<models::CausalLM> model;
};

Subject load(const EvalFlags& flags) {
  const std::filesystem::path directory = training::find_model_directory(flags.model);
  Subject subject{
      .directory = directory, .tokenizer = training::load_tokenizer(directory, flags.python), .model = nullptr};
  if (flags.untrained) {
    const auto seed = training::read_training_record(directory).config.seed;
    subject.model = std::make_shared<models::CausalLM>(models::load_model_config(directory / "config.json"));
    subject.model->initialize(static_cast<std::uint64_t>(seed));
  } else {
    subject.model = models::load_model(directory);
  }
  subject.model->to(open_device(flags.device));
  keep_weights_as(flags.weights, *subject.model);
  return subject;
}

/// The start of every result.
Json describe(const EvalFlags& flags, const Subject& subject) {
  return {{"model", subject.directory.string()}, {"untrained", flags.untrained}};
}

void print_row(const char* name, const std::string& text) { fmt::print("{:<12}{}\n", name, text); }

void print_model_row(const EvalFlags& flags, const Subject& subject) {
  print_row("model", subject.directory.string() + (flags.untrained ? " (untrained)" : ""));
}

void add_score(Json& json, const evaluation::EvaluationResult& score) {
  json["tokens"] = score.tokens;
  json["skipped_tokens"] = score.skipped_tokens;
  json["bytes"] = score.bytes;
  json["nats"] = score.nats;
  json["loss"] = score.loss();
  json["perplexity"] = score.perplexity();
  json["bits_per_byte"] = score.bits_per_byte();
}

void print_document(const EvalFlags& flags, const data::Document& document, const evaluation::EvaluationResult& score) {
  if (flags.json) {
    Json json = {{"document", document.path}};
    add_score(json, score);
    fmt::print("{}\n", json.dump(-1, ' ', false, Json::error_handler_t::replace));  // a path may be any bytes
  } else {
    fmt::print("{:>10.4f}  {:>12}  {}\n", score.bits_per_byte(), format_count(score.bytes), document.path);
  }
}

void print_data_result(const EvalFlags& flags, const Subject& subject, const evaluation::EvaluationResult& result,
                       double seconds) {
  if (flags.json) {
    Json json = describe(flags, subject);
    json["data"] = flags.data.string();
    json["split"] = name_of(flags.split);
    json["window"] = flags.window > 0 ? Json(flags.window) : Json(nullptr);
    json["documents"] = result.documents;
    add_score(json, result);
    fmt::print("{}\n", json.dump(flags.documents ? -1 : 2));
    return;
  }
  print_model_row(flags, subject);
  print_row("split", fmt::format("{} of {}", name_of(flags.split), flags.data.string()));
  print_row("bytes", fmt::format("{} in {}, read in {}", format_count(result.bytes),
                                 format_counted(result.documents, "document"), format_duration(seconds)));
  print_row("tokens", fmt::format("{} scored{}", format_count(result.tokens),
                                  result.skipped_tokens == 0
                                      ? ""
                                      : fmt::format("; {} of prompts only read", format_count(result.skipped_tokens))));
  if (flags.window > 0) print_row("window", fmt::format("{} tokens", format_count(flags.window)));
  print_row("loss", fmt::format("{:.4f} nats a token", result.loss()));
  print_row("perplexity", fmt::format("{:.3f} a token", result.perplexity()));
  print_row("bits/byte", fmt::format("{:.4f}", result.bits_per_byte()));
}

void score_data(const EvalFlags& flags) {
  const auto dataset = data::TokenDataset::open(flags.data, flags.split);
  require(
      dataset.num_documents() > 0, ErrorCode::invalid_argument, "[eval] there must be documents to score; got none in ",
      name_of(flags.split), " of ", flags.data.string(),
      flags.split == data::Split::heldout ? " (`comba data pack --heldout tail` holds the ends of few files out)" : "");
  const Subject subject = load(flags);
  require(subject.tokenizer.to_json() == dataset.tokenizer().to_json(), ErrorCode::invalid_argument,
          "[eval] model and data must have one tokenizer; got ", subject.tokenizer.description(), " and ",
          dataset.tokenizer().description());
  const auto start = Clock::now();
  const auto elapsed = [&] { return std::chrono::duration<double>(Clock::now() - start).count(); };
  evaluation::EvaluationResult result;
  {
    ProgressLine progress;
    std::int64_t bytes = 0;
    const auto show = [&](const data::Document& document, const evaluation::EvaluationResult& score) {
      bytes += score.bytes;
      if (flags.documents) return print_document(flags, document, score);
      progress.update(fmt::format("{} of {}, {}/s", format_bytes(bytes), format_bytes(dataset.num_bytes()),
                                  format_bytes(static_cast<std::int64_t>(static_cast<double>(bytes) / elapsed()))));
    };
    result = evaluation::evaluate(*subject.model, dataset,
                                  {.window = flags.window, .score_prompts = flags.score_prompts, .on_document = show});
  }
  print_data_result(flags, subject, result, elapsed());
}

/// Shows how many of the examples are done.
std::function<void(std::int64_t)> counter(ProgressLine& progress, std::size_t total) {
  return [&progress, total](std::int64_t done) {
    progress.update(fmt::format("{} of {}", format_count(done), format_count(static_cast<std::int64_t>(total))));
  };
}

void score_last_word_file(const EvalFlags& flags) {
  std::vector<std::string> texts;
  for_each_json_line(flags.last_word, [&](const nlohmann::json& object, const std::string& where) {
    texts.push_back(text_of(object, "text", where));
  });
  const Subject subject = load(flags);
  evaluation::LastWordResult result;
  {
    ProgressLine progress;
    result = as_content_of(flags.last_word, [&] {
      return evaluation::score_last_words(*subject.model, subject.tokenizer, texts, counter(progress, texts.size()));
    });
  }
  if (flags.json) {
    Json json = describe(flags, subject);
    json["last_word"] = flags.last_word.string();
    json["texts"] = result.texts;
    json["correct"] = result.correct;
    json["accuracy"] = result.accuracy();
    json["nats"] = result.nats;
    json["perplexity"] = result.perplexity();
    fmt::print("{}\n", json.dump(2));
    return;
  }
  print_model_row(flags, subject);
  print_row("texts", fmt::format("{} of {}", format_count(result.texts), flags.last_word.string()));
  print_row("accuracy", fmt::format("{:.4f}", result.accuracy()));
  print_row("perplexity", fmt::format("{:.3f} a word", result.perplexity()));
}

evaluation::ChoiceQuestion parse_question(const nlohmann::json& object, const std::string& where) {
  evaluation::ChoiceQuestion question{.context = text_of(object, "context", where), .choices = {}};
  const auto choices = object.find("choices");
  require(choices != object.end() && choices->is_array(), ErrorCode::io,
          "[jsonl] choices must be a list of texts; got ", choices == object.end() ? "nothing" : choices->dump(), " (",
          where, ")");
  for (const auto& choice : *choices) {
    require(choice.is_string(), ErrorCode::io, "[jsonl] choices must be texts; got ", choice.dump(), " (", where, ")");
    question.choices.push_back(choice.get<std::string>());
  }
  const auto answer = object.find("answer");
  require(answer != object.end() && answer->is_number_integer(), ErrorCode::io,
          "[jsonl] answer must be a whole number; got ", answer == object.end() ? "nothing" : answer->dump(), " (",
          where, ")");
  question.answer = answer->get<std::int64_t>();
  return question;
}

void score_choices_file(const EvalFlags& flags) {
  std::vector<evaluation::ChoiceQuestion> questions;
  for_each_json_line(flags.choices, [&](const nlohmann::json& object, const std::string& where) {
    questions.push_back(parse_question(object, where));
  });
  const Subject subject = load(flags);
  evaluation::ChoicesResult result;
  {
    ProgressLine progress;
    result = as_content_of(flags.choices, [&] {
      return evaluation::score_choices(*subject.model, subject.tokenizer, questions,
                                       counter(progress, questions.size()));
    });
  }
  if (flags.json) {
    Json json = describe(flags, subject);
    json["choices"] = flags.choices.string();
    json["questions"] = result.questions;
    json["correct"] = result.correct;
    json["accuracy"] = result.accuracy();
    json["correct_normalized"] = result.correct_normalized;
    json["accuracy_normalized"] = result.accuracy_normalized();
    fmt::print("{}\n", json.dump(2));
    return;
  }
  print_model_row(flags, subject);
  print_row("questions", fmt::format("{} of {}", format_count(result.questions), flags.choices.string()));
  print_row("accuracy", fmt::format("{:.4f}, {:.4f} normalized", result.accuracy(), result.accuracy_normalized()));
}

void run_eval(const EvalFlags& flags) {
  require(!flags.data.empty() || !flags.last_word.empty() || !flags.choices.empty(), ErrorCode::invalid_argument,
          "[eval] needs something to score: --data, --last-word or --choices");
  if (flags.threads > 0) at::set_num_threads(flags.threads);
  if (!flags.data.empty()) return score_data(flags);
  flags.last_word.empty() ? score_choices_file(flags) : score_last_word_file(flags);
}

}  // namespace

void register_eval(CLI::App& program) {
  auto flags = std::make_shared<EvalFlags>();
  CLI::App* command =
      program.add_subcommand("eval", "Score a model on a data set, last words or questions")->footer(kEvalDetails);
  command->add_option("--model", flags->model, "Model directory, or a run (its newest checkpoint)")
      ->required()
      ->type_name("DIR");
  CLI::Option* data = command->add_option("--data", flags->data, "Data set of `comba data pack`")->type_name("DIR");
  CLI::Option* last_word =
      command->add_option("--last-word", flags->last_word, "Texts whose last word is asked, as JSON lines")
          ->type_name("FILE")
          ->excludes(data);
  command->add_option("--choices", flags->choices, "Questions with answers to choose from, as JSON lines")
      ->type_name("FILE")
      ->excludes(data)
      ->excludes(last_word);
  const auto split = std::make_shared<std::string>("heldout");
  command->add_option("--split", *split, "What to score: heldout (default) or train")
      ->check(CLI::IsMember({"heldout", "train"}).description(""))
      ->type_name("heldout|train")
      ->needs(data);
  CLI::Option* window = command->add_option("--window", flags->window, "Cut documents into windows of N tokens")
                            ->check(must_be_positive)
                            ->type_name("N")
                            ->needs(data);
  command->add_flag("--carry-state")->description("Read documents as a whole (default)")->excludes(window)->needs(data);
  command->add_flag("--score-prompts", flags->score_prompts, "Score prompts too, which are not learned")->needs(data);
  command->add_flag("--documents", flags->documents, "Print each document's score too")->needs(data);
  command->add_flag("--untrained", flags->untrained, "Score the model as it was before its first step");
  command->add_flag("--json", flags->json, "Print one JSON object (with --documents: one a line)");
  command->add_option("--python", flags->python, "Python for the texts of a tokenizer.json (default python3)")
      ->type_name("PROGRAM");
  add_device_flag(*command, flags->device);
  add_weights_flag(*command, flags->weights);
  command->add_option("--threads", flags->threads, "Threads; 0: as many as LibTorch takes by itself")
      ->check(must_not_be_negative)
      ->type_name("N");
  command->callback([flags, split] {
    flags->split = *split == "train" ? data::Split::train : data::Split::heldout;
    run_eval(*flags);
  });
}

}  // namespace comba::cli
