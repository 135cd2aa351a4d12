#include "data/piece_encoder.h"

#include <algorithm>

#include "base/message.h"
#include "data/json.h"

namespace comba::data {
namespace {

constexpr std::int64_t kHoldoutPeriod = 20;

/// How many of a document's bytes come before its tail.
std::int64_t bytes_before_tail(std::int64_t num_bytes) { return num_bytes - num_bytes / kHoldoutPeriod; }

/// The text of one field of a record.
const std::string& text_of(const nlohmann::json& record, const std::string& field, const std::string& path) {
  const auto found = record.find(field);
  require(found != record.end(), ErrorCode::io, "[pack] ", path, " must have the field \"", field,
          "\" (see --text-field); got ", record.empty() ? "an empty record" : "\"" + record.begin().key() + "\"",
          record.size() > 1 ? " and others" : "");
  require(found->is_string(), ErrorCode::io, "[pack] ", path, ": the field \"", field, "\" must be a text; got ",
          shown(*found));
  return found->get_ref<const std::string&>();
}

}  // namespace

bool is_held_out(const std::string& relative_path) {
  std::int64_t remainder = 0;
  for (const std::uint8_t byte : md5(relative_path)) remainder = (remainder * 256 + byte) % kHoldoutPeriod;
  return remainder == 0;
}

void PieceEncoder::encode(EncodedPiece& piece) const {
  for (EncodedPart& part : piece.parts) {
    part.ids.clear();
    part.num_context = 0;
    part.num_bytes = 0;
  }
  if (piece.piece.kind == Piece::Kind::text) encode_text(piece);
  if (piece.piece.kind == Piece::Kind::record) encode_record(piece);
}

void PieceEncoder::encode_text(EncodedPiece& piece) const {
  const std::string_view text = piece.piece.text;
  const auto num_bytes = static_cast<std::int64_t>(text.size());
  // Where the held-out text begins. The size seen while listing decides: a file that grew since then stays within the
  // split foreseen.
  const std::int64_t border = holdout_ == Holdout::tail       ? bytes_before_tail(piece.document_bytes)
                              : is_held_out(piece.piece.path) ? 0
                                                              : piece.first_byte + num_bytes;
  const std::int64_t for_train = std::clamp<std::int64_t>(border - piece.first_byte, 0, num_bytes);
  const auto encode_part = [&](Split split, std::string_view part_text, bool starts) {
    EncodedPart& part = piece.parts[static_cast<int>(split)];
    part.num_bytes = static_cast<std::int64_t>(part_text.size());
    if (!part_text.empty()) tokenizer_.append_ids(part_text, starts, part.ids);
  };
  encode_part(Split::train, text.substr(0, static_cast<std::size_t>(for_train)), piece.first_byte == 0);
  encode_part(Split::heldout, text.substr(static_cast<std::size_t>(for_train)), piece.first_byte <= border);
}

void PieceEncoder::encode_record(EncodedPiece& piece) const {
  const nlohmann::json record = parse_json(piece.piece.text);
  require(record.is_object(), ErrorCode::io, "[pack] ", piece.piece.path, " must be a line with one JSON object; got ",
          record.is_discarded() ? "no JSON" : shown(record));
  const std::string& text = text_of(record, fields_.text, piece.piece.path);
  const std::string none;
  const std::string& prompt = fields_.prompt.empty() ? none : text_of(record, fields_.prompt, piece.piece.path);
  Md5 hash;
  if (!fields_.prompt.empty()) hash.update(prompt.c_str(), prompt.size() + 1);
  hash.update(text.data(), text.size());
  piece.digest = hash.finish();
  if (text.empty()) return;  // nothing to learn from

  const auto num_bytes = static_cast<std::int64_t>(text.size());
  const std::int64_t border = holdout_ == Holdout::tail       ? bytes_before_tail(num_bytes)
                              : is_held_out(piece.piece.path) ? 0
                                                              : num_bytes;
  const auto head = std::string_view(text).substr(0, static_cast<std::size_t>(border));
  const auto tail = std::string_view(text).substr(static_cast<std::size_t>(border));
  EncodedPart& train = piece.parts[static_cast<int>(Split::train)];
  EncodedPart& heldout = piece.parts[static_cast<int>(Split::heldout)];
  EncodedPart& start = head.empty() ? heldout : train;
  if (!prompt.empty()) {
    tokenizer_.append_ids(prompt, /*starts_document=*/true, start.ids);
    start.num_context = start.ids.size();
    start.num_bytes = static_cast<std::int64_t>(prompt.size());
  }
  const auto encode_part = [&](EncodedPart& part, std::string_view part_text) {
    if (part_text.empty()) return;
    tokenizer_.append_ids(part_text, part.ids.empty(), part.ids);
    part.num_bytes += static_cast<std::int64_t>(part_text.size());
  };
  encode_part(train, head);
  encode_part(heldout, tail);
}

}  // namespace comba::data
