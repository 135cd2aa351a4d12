#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include <chrono>
#include <memory>

#include "base/message.h"
#include "base/number_checks.h"
#include "comba/parallel.h"
#include "command.h"
#include "data/pack.h"
#include "data/train_tokenizer.h"
#include "format.h"
#include "progress.h"
#include "signals.h"

namespace comba::cli {
namespace {

using data::Split;

constexpr const char* kPackDetails =
    R"(Directories are read with everything below them, and files packed in the order of their relative paths.
Left out, and counted: files with the same content as an earlier one, empty files, binary files (a NUL byte in the
first 8000 bytes), and symbolic links and special files in directories. Names that start with '.' are passed over.
A file or directory that cannot be read is an error. The data set appears whole or, if anything fails, not at all.

Globs choose among the files of directories: one without '/' is matched with the name, one with '/' with the relative
path, where * also matches '/'.

A .jsonl or .ndjson file holds a document a line, in the field --text-field of its JSON object; with --prompt-field,
what that field holds comes before it, to be read but not learned. Their paths are FILE:LINE. Files that end in .gz or
.zst are decompressed on the way.

The rows of a .parquet file are records too; reading them takes Python with the package pyarrow, and a tokenizer.json
the package tokenizers. Its ids are decoded later without Python; a prompt is encoded by Python again.

Held out for evaluation: by default the documents with md5(relative path) mod 20 == 0, about every 20th; with
--heldout tail the last 20th of every document, which suits texts of few files.

Examples:
  comba data pack /usr/include/c++ --out headers.data
  comba data pack notes --include '*.md' --exclude 'drafts/*' --out notes.data
  comba data pack novel.txt --heldout tail --out novel.data
  comba data pack web.jsonl.zst --text-field content --out web.data
  comba data pack web.parquet --tokenizer web.model --out web.data
  comba data pack chats.jsonl --prompt-field question --text-field answer --out chats.data)";

std::string summary(const data::DatasetIndex& index) {
  std::string text = fmt::format("{:<9}{:>12}{:>18}{:>18}\n", "split", "documents", "bytes", "tokens");
  for (const Split split : data::kSplits) {
    const data::SplitCounts& counts = index[split];
    text += fmt::format("{:<9}{:>12}{:>18}{:>18}\n", name_of(split), format_count(counts.num_documents),
                        format_count(counts.num_bytes), format_count(counts.num_tokens));
  }
  return text;
}

std::string left_out(const data::PackReport& report) {
  std::string text;
  const auto add = [&](std::int64_t count, const char* what) {
    if (count > 0) text += fmt::format("{}{} {}", text.empty() ? "left out: " : ", ", what, format_count(count));
  };
  add(report.num_duplicates, "duplicates");
  add(report.num_empty, "empty");
  add(report.num_binary, "binary");
  add(report.num_symbolic_links, "symbolic links");
  add(report.num_special_files, "special files");
  return text.empty() ? text : text + '\n';
}

void run_pack(data::PackOptions options) {
  const auto start = std::chrono::steady_clock::now();
  const auto elapsed = [&] { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(); };
  options.stop = &stop_on_signals();
  data::PackReport report;
  {
    ProgressLine progress;
    options.on_progress = [&](const data::PackProgress& now) {
      progress.update(fmt::format("{} of {} files, {} of {}, {}/s", format_count(now.num_files),
                                  format_count(now.total_files), format_bytes(now.num_bytes),
                                  format_bytes(now.total_bytes),
                                  format_bytes(static_cast<std::int64_t>(now.num_bytes / elapsed()))));
    };
    report = data::pack(options);
  }
  fmt::print("{}{}", summary(report.index), left_out(report));
  if (report.index[Split::heldout].num_documents == 0) {
    fmt::print("nothing is held out, so there is nothing to evaluate on: for few files, use --heldout tail\n");
  }
  fmt::print("wrote {} in {}\n", options.output.string(), format_duration(elapsed()));
}

/// Which texts are read, for both commands that read them.
template <class Options>
void add_text_flags(CLI::App& command, Options& options) {
  command.add_option("--include", options.selection.include, "Take only files that match; may be repeated")
      ->type_name("GLOB")
      ->allow_extra_args(false);
  command.add_option("--exclude", options.selection.exclude, "Leave out files that match; may be repeated")
      ->type_name("GLOB")
      ->allow_extra_args(false);
  command.add_option("--text-field", options.records.text, "Field of a record that holds its text (default text)")
      ->type_name("NAME");
}

constexpr const char* kPythonHelp = "Python for parquet and tokenizer.json (default python3)";

data::Tokenizer open_tokenizer(const std::string& name, const std::string& python) {
  if (name == "bytes") return {};
  if (name.ends_with(".json")) return data::Tokenizer::from_hugging_face(name, python);
  return data::Tokenizer::from_sentencepiece(name);
}

void register_pack(CLI::App& data) {
  auto options = std::make_shared<data::PackOptions>();
  CLI::App* command = data.add_subcommand("pack", "Pack text into a data set")->footer(kPackDetails);
  command->add_option("input", options->inputs, "Files and directories")->required()->type_name("PATH");
  command->add_option("--out", options->output, "Directory of the data set")->required()->type_name("DIR");
  add_text_flags(*command, *options);
  command->add_option("--prompt-field", options->records.prompt, "Field with what comes before, not to be learned")
      ->type_name("NAME");
  const auto tokenizer = std::make_shared<std::string>("bytes");
  command->add_option("--tokenizer", *tokenizer, "bytes (default), a SentencePiece .model, or a tokenizer.json")
      ->type_name("bytes|FILE");
  command->add_option("--python", options->python, kPythonHelp)->type_name("PROGRAM");
  const auto holdout = std::make_shared<std::string>("files");
  command->add_option("--heldout", *holdout, "What is held out: whole documents (default) or their tails")
      ->check(CLI::IsMember({"files", "tail"}).description(""))
      ->type_name("files|tail");
  command->add_flag("--binary", options->include_binary, "Pack binary files too");
  command->add_flag("--keep-duplicates", options->keep_duplicates,
                    "Pack documents of equal content each time they come");
  const auto threads = std::make_shared<int>(0);
  command->add_option("--threads", *threads, "Threads; 0: the processors there are. The result is the same")
      ->check(must_not_be_negative)
      ->type_name("N");
  command->add_flag("--overwrite", options->overwrite, "Replace an earlier data set");
  command->callback([options, tokenizer, holdout, threads] {
    options->tokenizer = open_tokenizer(*tokenizer, options->python);
    if (*threads > 0) set_num_threads(*threads);
    options->holdout = *holdout == "tail" ? data::Holdout::tail : data::Holdout::files;
    run_pack(*options);
  });
}

constexpr const char* kTokenizerDetails =
    R"(Trains a SentencePiece model on the texts that `comba data pack` would train on: the same files and records, without
those held out. Text comes back from its ids as it was, byte for byte. Takes Python with the package sentencepiece; the
model needs neither to be used.

Examples:
  comba data tokenizer notes --vocab 8000 --out notes.model)";

void run_tokenizer(data::TrainTokenizerOptions options) {
  options.stop = &stop_on_signals();
  data::Tokenizer tokenizer;
  {
    ProgressLine progress;
    options.on_progress = [&](const data::PackProgress& now) {
      progress.update(fmt::format("read {} of {} files, {} of {}", format_count(now.num_files),
                                  format_count(now.total_files), format_bytes(now.num_bytes),
                                  format_bytes(now.total_bytes)));
    };
    tokenizer = data::train_tokenizer(options);
  }
  fmt::print("wrote {}: {}\n", options.output.string(), tokenizer.description());
}

void register_tokenizer(CLI::App& data) {
  auto options = std::make_shared<data::TrainTokenizerOptions>();
  CLI::App* command = data.add_subcommand("tokenizer", "Train a SentencePiece tokenizer")->footer(kTokenizerDetails);
  command->add_option("input", options->inputs, "Files and directories")->required()->type_name("PATH");
  command->add_option("--out", options->output, "The model file")->required()->type_name("FILE");
  command->add_option("--vocab", options->vocab, "Number of pieces, at most (default 8000)")
      ->check(must_be_positive)
      ->type_name("N");
  command->add_option("--kind", options->kind, "unigram (default) or bpe")
      ->check(CLI::IsMember({"unigram", "bpe"}).description(""))
      ->type_name("unigram|bpe");
  command->add_option("--lines", options->sentences, "Lines drawn to train on (default 1000000)")
      ->check(must_be_positive)
      ->type_name("N");
  add_text_flags(*command, *options);
  command->add_option("--python", options->python, "Python with sentencepiece (default python3)")->type_name("PROGRAM");
  command->callback([options] { run_tokenizer(*options); });
}

void list_documents(const data::TokenDataset& split) {
  for (std::int64_t i = 0; i < split.num_documents(); ++i) {
    const data::Document document = split.document(i);
    fmt::print("{}\t{}\n", document.num_bytes, document.path);
  }
}

void print_info(const std::filesystem::path& directory, const std::string& listed_split) {
  const data::TokenDataset train = data::TokenDataset::open(directory, Split::train),
                           heldout = data::TokenDataset::open(directory, Split::heldout);
  if (!listed_split.empty()) return list_documents(listed_split == name_of(Split::train) ? train : heldout);
  const data::DatasetIndex index = data::read_index(directory);
  fmt::print("tokenizer  {}\nvocab      {}\nloss mask  {}\nsource md5 {}\n\n{}", index.tokenizer.description(),
             index.tokenizer.vocab(), index.has_loss_mask ? "prompts are not learned" : "none", index.source_md5,
             summary(index));
}

void run_info(const std::vector<std::filesystem::path>& directories, const std::string& listed_split) {
  require(directories.size() == 1 || listed_split.empty(), ErrorCode::invalid_argument,
          "--documents lists those of one data set; got ", directories.size(), " data sets");
  for (const std::filesystem::path& directory : directories) {
    if (directories.size() > 1)
      fmt::print("{}{}:\n", &directory == &directories.front() ? "" : "\n", directory.string());
    print_info(directory, listed_split);
  }
}

void register_info(CLI::App& data) {
  struct Options {
    std::vector<std::filesystem::path> directories;
    std::string listed_split;
  };
  auto options = std::make_shared<Options>();
  CLI::App* command = data.add_subcommand("info", "Check data sets and show what they hold")
                          ->footer(
                              "Examples:\n"
                              "  comba data info headers.data\n"
                              "  comba data info books.data headers.data\n"
                              "  comba data info headers.data --documents heldout");
  command->add_option("dataset", options->directories, "Directories that data pack wrote")
      ->required()
      ->type_name("DIR");
  command->add_option("--documents", options->listed_split, "List the documents of a split: bytes, tab, relative path")
      ->check(CLI::IsMember({"train", "heldout"}).description(""))
      ->type_name("train|heldout");
  command->callback([options] { run_info(options->directories, options->listed_split); });
}

}  // namespace

void register_data(CLI::App& program) {
  CLI::App* data = program.add_subcommand("data", "Make and examine data sets")
                       ->footer(
                           "Examples:\n"
                           "  comba data pack /usr/include/c++ --out headers.data\n"
                           "  comba data info headers.data");
  register_pack(*data);
  register_tokenizer(*data);
  register_info(*data);
}

}  // namespace comba::cli
