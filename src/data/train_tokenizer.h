#pragma once

#include <functional>
#include <string>

#include "data/pack.h"

namespace comba::data {

struct TrainTokenizerOptions {
  std::vector<std::filesystem::path> inputs;  ///< files and directories, read as pack() reads them
  FileSelection selection{};
  RecordFields records{};
  std::string python = "python3";    ///< runs the trainer of the Python package sentencepiece
  std::filesystem::path output;      ///< the .model file
  std::int64_t vocab = 8000;         ///< number of pieces, at most: small texts have fewer
  std::string kind = "unigram";      ///< or "bpe"
  std::int64_t sentences = 1000000;  ///< lines drawn to train on; memory grows with them
  std::function<void(const PackProgress&)> on_progress = nullptr;
  const StopFlag* stop = nullptr;
};

/// Trains a SentencePiece model on the lines of the training documents (held-out ones are left alone). Bytes outside
/// its pieces have pieces of their own, and nothing is normalised: text comes back as it was. Returns its tokenizer.
/// `output` appears whole or not at all. Throws Error: io, invalid_argument, interrupted.
Tokenizer train_tokenizer(const TrainTokenizerOptions& options);

}  // namespace comba::data
