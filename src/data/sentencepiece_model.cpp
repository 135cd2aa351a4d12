#include "data/sentencepiece_model.h"

#include <bit>
#include <cmath>
#include <unordered_set>

#include "base/message.h"

namespace comba::data {
namespace {

using Model = SentencePieceModel;

constexpr std::size_t kMostPieceBytes = 4096;

/// One field of a protocol buffer message.
struct Field {
  std::uint32_t number = 0;
  std::uint64_t value = 0;  // of a varint or a fixed-width field
  std::string_view bytes;   // of a length-delimited field
  enum class Wire : std::uint8_t { varint = 0, fixed64 = 1, bytes = 2, fixed32 = 5 } wire = Wire::varint;
};

/// Walks through the fields of one message.
class Message {
 public:
  Message(std::string_view bytes, const std::string& where) : left_(bytes), where_(where) {}

  bool next(Field& field) {
    if (left_.empty()) return false;
    const std::uint64_t tag = varint();
    field = Field();
    field.number = static_cast<std::uint32_t>(tag >> 3);
    field.wire = static_cast<Field::Wire>(tag & 7);
    check(tag >> 3 != 0 && tag >> 32 == 0, "a field's number is out of range");
    switch (field.wire) {
      case Field::Wire::varint:
        field.value = varint();
        break;
      case Field::Wire::fixed64:
        field.value = fixed(8);
        break;
      case Field::Wire::bytes:
        field.bytes = take(varint());
        break;
      case Field::Wire::fixed32:
        field.value = fixed(4);
        break;
      default:
        check(false, "a field is of no known kind");
    }
    return true;
  }

  std::string_view bytes_of(const Field& field) const {
    check(field.wire == Field::Wire::bytes, "a text or message is missing");
    return field.bytes;
  }
  std::int64_t int_of(const Field& field) const {
    check(field.wire == Field::Wire::varint, "a whole number is missing");
    return static_cast<std::int32_t>(field.value);  // as protocol buffers narrow an int32
  }
  float float_of(const Field& field) const {
    check(field.wire == Field::Wire::fixed32, "a number is missing");
    const auto value = std::bit_cast<float>(static_cast<std::uint32_t>(field.value));
    check(std::isfinite(value), "a score is not finite");
    return value;
  }

 private:
  void check(bool holds, const char* what) const {
    require(holds, ErrorCode::io, "[SentencePiece] '", where_, "' must be a SentencePiece model; got a file in which ",
            what, " (not such a file, or damaged)");
  }

  std::string_view take(std::uint64_t size) {
    check(size <= left_.size(), "a field reaches beyond the end");
    const std::string_view bytes = left_.substr(0, size);
    left_.remove_prefix(size);
    return bytes;
  }

  std::uint64_t varint() {
    std::uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      const auto byte = static_cast<unsigned char>(take(1)[0]);
      value |= static_cast<std::uint64_t>(byte & 127) << shift;
      if (byte < 128) return value;
    }
    check(false, "a number is too long");
    return 0;
  }

  std::uint64_t fixed(int size) {
    const std::string_view bytes = take(static_cast<std::uint64_t>(size));
    std::uint64_t value = 0;
    for (int i = size - 1; i >= 0; --i) value = value << 8 | static_cast<unsigned char>(bytes[static_cast<size_t>(i)]);
    return value;
  }

  std::string_view left_;
  const std::string& where_;
};

Model::Piece read_piece(std::string_view bytes, const std::string& where) {
  Model::Piece piece;
  Message message(bytes, where);
  for (Field field; message.next(field);) {
    if (field.number == 1) piece.text = message.bytes_of(field);
    if (field.number == 2) piece.score = message.float_of(field);
    if (field.number == 3) {
      const std::int64_t type = message.int_of(field);
      require(type >= 1 && type <= 6, ErrorCode::io, "[SentencePiece] '", where,
              "': a piece's type must be in 1..6; got ", type, " (damaged file?)");
      piece.type = static_cast<Model::Type>(type);
    }
  }
  return piece;
}

/// A feature that is there but not supported.
void unsupported_if(bool wanted, const std::string& where, const char* what) {
  require(!wanted, ErrorCode::unsupported, "[SentencePiece] '", where,
          "' must be a unigram or BPE model that marks spaces before words; got ", what);
}

void read_trainer(std::string_view bytes, const std::string& where, Model& model) {
  Message message(bytes, where);
  for (Field field; message.next(field);) {
    switch (field.number) {
      case 3: {
        const std::int64_t kind = message.int_of(field);
        unsupported_if(kind != 1 && kind != 2, where, "a model of words or characters");
        model.kind = static_cast<Model::Kind>(kind);
        break;
      }
      case 24:
        unsupported_if(message.int_of(field) != 0, where, "one that marks them behind (treat_whitespace_as_suffix)");
        break;
      case 35:
        model.byte_fallback = message.int_of(field) != 0;
        break;
      case 41:
        model.bos_id = message.int_of(field);
        break;
      case 44:
        model.unknown_surface = message.bytes_of(field);
        break;
      default:
        break;
    }
  }
}

void read_normalizer(std::string_view bytes, const std::string& where, Model& model) {
  Message message(bytes, where);
  for (Field field; message.next(field);) {
    if (field.number == 2) model.character_map = message.bytes_of(field);
    if (field.number == 3) model.add_dummy_prefix = message.int_of(field) != 0;
    if (field.number == 4) model.remove_extra_whitespaces = message.int_of(field) != 0;
    if (field.number == 5) unsupported_if(message.int_of(field) == 0, where, "spaces as they are (escape_whitespaces)");
  }
}

/// "<0x41>" for 65
std::string byte_piece(int byte) {
  constexpr char kDigits[] = "0123456789ABCDEF";
  return std::string("<0x") + kDigits[byte >> 4] + kDigits[byte & 15] + ">";
}

void check_pieces(Model& model, const std::string& where) {
  const auto size = static_cast<std::int64_t>(model.pieces.size());
  std::unordered_set<std::string_view> seen;
  std::int64_t num_unknown = 0, num_bytes = 0;
  for (std::int64_t id = 0; id < size; ++id) {
    const Model::Piece& piece = model.pieces[static_cast<std::size_t>(id)];
    require(piece.text.size() <= kMostPieceBytes, ErrorCode::io, "[SentencePiece] '", where,
            "': a piece must have at most ", kMostPieceBytes, " bytes; got ", piece.text.size(), " at piece ", id,
            " (damaged file?)");
    require(!piece.text.empty() && seen.insert(piece.text).second, ErrorCode::io, "[SentencePiece] '", where,
            "': pieces must be different and not empty; got another at piece ", id, " (damaged file?)");
    if (piece.type == Model::Type::unknown) {
      model.unknown_id = id;
      ++num_unknown;
    }
    unsupported_if(piece.type == Model::Type::unused && model.kind == Model::Kind::bpe, where,
                   "BPE with unused pieces");
    if (piece.type == Model::Type::byte) ++num_bytes;
  }
  require(num_unknown == 1, ErrorCode::io, "[SentencePiece] '", where,
          "' must have one piece for what is unknown; got ", num_unknown, " (not such a file, or damaged)");
  if (model.byte_fallback) {
    bool complete = num_bytes == 256;
    for (int byte = 0; byte < 256; ++byte) complete = complete && seen.contains(byte_piece(byte));
    require(complete, ErrorCode::io, "[SentencePiece] '", where, "' must have a piece for each byte; got ", num_bytes);
  }
  // The number is only a default of the file format; the piece itself decides.
  const bool has_bos = model.bos_id >= 0 && model.bos_id < size &&
                       model.pieces[static_cast<std::size_t>(model.bos_id)].type == Model::Type::control;
  if (!has_bos) model.bos_id = -1;
}

}  // namespace

SentencePieceModel parse_sentencepiece(std::string_view bytes, const std::string& where) {
  Model model;
  model.bos_id = 1;  // the default of the file format
  Message message(bytes, where);
  for (Field field; message.next(field);) {
    if (field.number == 1) model.pieces.push_back(read_piece(message.bytes_of(field), where));
    if (field.number == 2) read_trainer(message.bytes_of(field), where, model);
    if (field.number == 3) read_normalizer(message.bytes_of(field), where, model);
    if (field.number == 5) {
      // A denormalizer; an empty one, as every file has, does nothing.
      Model other;
      read_normalizer(message.bytes_of(field), where, other);
      unsupported_if(!other.character_map.empty(), where, "one with a denormalizer");
    }
  }
  check_pieces(model, where);
  return model;
}

}  // namespace comba::data
