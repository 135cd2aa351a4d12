#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace comba::data {

/// What a SentencePiece .model file says, as far as encoding and decoding need it. The file is a protocol buffer
/// (ModelProto of sentencepiece_model.proto); it is read here rather than by the library, whose static form Debian does
/// not ship and which ends the process on some damaged files.
struct SentencePieceModel {
  enum class Kind : std::uint8_t { unigram = 1, bpe = 2 };
  enum class Type : std::uint8_t { normal = 1, unknown = 2, control = 3, user_defined = 4, unused = 5, byte = 6 };
  struct Piece {
    std::string text;
    float score = 0;
    Type type = Type::normal;
  };

  Kind kind = Kind::unigram;
  std::vector<Piece> pieces;  // by id
  std::int64_t unknown_id = 0;
  std::int64_t bos_id = -1;  ///< -1: none
  bool byte_fallback = false;
  std::string unknown_surface = " \u2047 ";  ///< what an unknown piece is decoded to

  std::string character_map;  ///< see Normalizer; empty: none
  bool add_dummy_prefix = true;
  bool remove_extra_whitespaces = true;
};

/// Reads a .model file's content. Throws Error: io when it is none or damaged, unsupported when it wants what this
/// program does not do; both name `where` and what is wrong.
SentencePieceModel parse_sentencepiece(std::string_view bytes, const std::string& where);

}  // namespace comba::data
