#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "data/tokenizer_model.h"

namespace comba::data {

/// Turns text into token ids and back. Kinds:
/// - "bytes", the default: ids 0..255 are the bytes themselves and 256 is BOS;
/// - "sentencepiece": a SentencePiece model (unigram or BPE);
/// - "table": the ids of a tokenizer that only Python runs (a Hugging Face tokenizer.json), decoded here from a table.
/// BOS opens every document. A model without one gets it as one more id. Copies are cheap; all functions are
/// thread-safe.
class Tokenizer {
 public:
  /// Bytes.
  Tokenizer() = default;
  explicit Tokenizer(std::shared_ptr<const TokenizerModel> model) : model_(std::move(model)) {}

  /// Reads what to_json() wrote. `where` names the text's origin in errors (io). A "table" encodes with `python`, which
  /// is started with the first text and needs the package tokenizers.
  static Tokenizer from_json(const std::string& json_text, const std::string& where,
                             const std::string& python = "python3");
  /// A Hugging Face tokenizer.json, run by `python` with the package tokenizers. Throws Error (io) with what it said.
  static Tokenizer from_hugging_face(const std::filesystem::path& path, const std::string& python);
  /// Reads a SentencePiece .model file. Throws Error: io when it is none, unsupported when it is of another kind.
  static Tokenizer from_sentencepiece(const std::filesystem::path& path);
  /// A JSON object that holds all there is to know, a SentencePiece model included. Equal tokenizers give equal texts.
  std::string to_json() const;
  /// "bytes", or the kind and what tells it from others of its kind. For people.
  std::string description() const;

  bool is_bytes() const { return model_ == nullptr; }

  /// Number of ids. A model may have more rows (padding); it must not have fewer.
  std::int64_t vocab() const { return model_ ? model_->vocab() : 257; }
  std::int64_t bos() const { return model_ ? model_->bos() : 256; }

  /// Ids of `text`, without BOS; `starts_document`: nothing comes before it. Throws Error (io) for a "table" when
  /// Python does not serve.
  std::vector<std::int64_t> encode(std::string_view text, bool starts_document = true) const;
  /// Appends the ids of `text`, a part of a document, without BOS. `starts_document`: it is the first part.
  void append_ids(std::string_view text, bool starts_document, std::vector<std::uint32_t>& ids) const;
  /// Text of `ids`. BOS and ids of padding rows stand for nothing; a negative id is an error. After a BOS at the start
  /// of `ids`, the space that some tokenizers put before a document is taken away.
  std::string decode(std::span<const std::int64_t> ids) const;

 private:
  std::shared_ptr<const TokenizerModel> model_;  // none: bytes
};

}  // namespace comba::data
