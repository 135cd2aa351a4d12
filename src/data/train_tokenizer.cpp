#include "data/train_tokenizer.h"

#include "base/file.h"
#include "base/message.h"
#include "comba/parallel.h"
#include "data/python_helper.h"
#include "data/sentencepiece.h"

namespace comba::data {
namespace {

/// Sends the lines of a text, in messages of bounded size.
void send_lines(PythonHelper& trainer, std::string_view text) {
  constexpr std::size_t kMostLineBytes = 4096;  // longer ones the trainer would leave out
  while (!text.empty()) {
    const std::size_t newline = text.find('\n');
    std::string_view line = text.substr(0, newline);
    text.remove_prefix(newline == std::string_view::npos ? text.size() : newline + 1);
    for (; !line.empty(); line.remove_prefix(std::min(line.size(), kMostLineBytes))) {
      trainer.send(line.substr(0, kMostLineBytes));
    }
  }
}

}  // namespace

Tokenizer train_tokenizer(const TrainTokenizerOptions& options) {
  require(options.vocab >= 1, ErrorCode::invalid_argument, "[tokenizer] vocab must be at least 1; got ", options.vocab);
  const SourceFiles sources = list_source_files(options.inputs, options.selection, options.output);
  PackProgress progress;
  progress.total_files = static_cast<std::int64_t>(sources.files.size());
  for (const SourceFile& file : sources.files) progress.total_bytes += file.num_bytes;
  DocumentReader reader(sources.files, {.cut_at_words = true, .records = options.records, .python = options.python});
  // Reads a record's texts in order, and nothing else: bytes stand for themselves.
  const Tokenizer bytes;
  const PieceEncoder encoder(bytes, options.records, Holdout::files);
  PythonHelper trainer(options.python,
                       {"train", std::to_string(options.vocab), options.kind, std::to_string(options.sentences),
                        std::to_string(num_threads())},
                       "tokenizer");
  std::int64_t sent = 0;
  for (EncodedPiece encoded; reader.next(encoded.piece);) {
    require(options.stop == nullptr || !options.stop->requested(), ErrorCode::interrupted, "[tokenizer] interrupted");
    encoder.encode(encoded);
    const auto& ids = encoded.parts[static_cast<int>(Split::train)].ids;
    const std::string text(ids.begin(), ids.end());
    send_lines(trainer, text);
    sent += static_cast<std::int64_t>(text.size());
    progress.num_bytes = reader.position();
    if (encoded.piece.ends_file) ++progress.num_files;
    if (options.on_progress) options.on_progress(progress);
  }
  require(sent > 0, ErrorCode::invalid_argument,
          "[tokenizer] the inputs must hold text to train on; got none (held-out documents are left alone)");
  const std::string model = trainer.receive(/*is_last=*/true);
  Tokenizer tokenizer(std::make_shared<SentencePiece>(model, options.output.string()));
  write_file_atomically(options.output, model);
  return tokenizer;
}

}  // namespace comba::data
