#pragma once

#include <cstdint>
#include <exception>
#include <string>
#include <vector>

#include "data/document_reader.h"
#include "data/md5.h"
#include "data/token_dataset.h"

namespace comba::data {

/// How text is kept aside to judge models on.
enum class Holdout {
  files,  ///< whole documents: those with md5(relative path) mod 20 == 0
  tail,   ///< the last twentieth of every document, for texts of few files
};

/// md5(path) mod 20 == 0, the digest read as a big-endian number.
bool is_held_out(const std::string& relative_path);

/// What of a piece goes into one split.
struct EncodedPart {
  std::vector<std::uint32_t> ids;
  std::size_t num_context = 0;  ///< the first ids, not to be learned
  std::int64_t num_bytes = 0;   ///< of text
};

/// A piece and what becomes of it.
struct EncodedPiece {
  Piece piece;
  std::int64_t first_byte = 0;      ///< of the piece in its document
  std::int64_t document_bytes = 0;  ///< of a text: the size of its file
  EncodedPart parts[2];             ///< by Split
  Md5::Digest digest{};             ///< of a record's content
  std::exception_ptr failure;       ///< of encoding it
};

/// Turns pieces into ids, each for itself, so that it may be called on several threads.
class PieceEncoder {
 public:
  PieceEncoder(const Tokenizer& tokenizer, const RecordFields& fields, Holdout holdout)
      : tokenizer_(tokenizer), fields_(fields), holdout_(holdout) {}

  /// Fills `parts`, and `digest` of a record. Throws Error (io) naming the line of a record that is none.
  void encode(EncodedPiece& piece) const;

 private:
  void encode_text(EncodedPiece& piece) const;
  void encode_record(EncodedPiece& piece) const;

  const Tokenizer& tokenizer_;
  const RecordFields& fields_;
  Holdout holdout_;
};

}  // namespace comba::data
