#include "data/sentencepiece.h"

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <queue>

#include "base/message.h"
#include "data/base64.h"
#include "data/md5.h"

namespace comba::data {
namespace {

using Type = SentencePieceModel::Type;

int hex_value(char digit) { return digit <= '9' ? digit - '0' : digit - 'A' + 10; }

PieceTrie make_trie(const SentencePieceModel& model, bool user_defined_only) {
  std::vector<PieceTrie::Entry> entries;
  for (std::size_t id = 0; id < model.pieces.size(); ++id) {
    const auto& piece = model.pieces[id];
    const bool wanted = piece.type == Type::user_defined || (piece.type == Type::normal && !user_defined_only);
    if (wanted) entries.emplace_back(piece.text, static_cast<std::int32_t>(id));
  }
  return PieceTrie(std::move(entries));
}

std::size_t first_character(std::string_view text) { return std::max<std::size_t>(1, character_bytes(text)); }

}  // namespace

SentencePiece::SentencePiece(std::string bytes, const std::string& where)
    : bytes_(std::move(bytes)),
      model_(parse_sentencepiece(bytes_, where)),
      normalizer_(model_, where),
      pieces_(make_trie(model_, /*user_defined_only=*/false)),
      user_defined_(make_trie(model_, /*user_defined_only=*/true)) {
  lowest_score_ = std::numeric_limits<float>::max();
  highest_score_ = std::numeric_limits<float>::lowest();
  std::fill(std::begin(byte_ids_), std::end(byte_ids_), -1);
  for (std::size_t id = 0; id < model_.pieces.size(); ++id) {
    const auto& piece = model_.pieces[id];
    if (piece.type == Type::normal) {
      lowest_score_ = std::min(lowest_score_, piece.score);
      highest_score_ = std::max(highest_score_, piece.score);
    }
    const bool is_byte = piece.type == Type::byte && piece.text.size() == 6 && piece.text.starts_with("<0x");
    if (is_byte) {
      const int byte = (hex_value(piece.text[3]) * 16 + hex_value(piece.text[4])) & 255;
      byte_ids_[byte] = static_cast<std::int32_t>(id);
    }
  }
}

std::string SentencePiece::to_json() const {
  nlohmann::ordered_json json;
  json["type"] = "sentencepiece";
  json["model"] = to_base64(bytes_);
  return json.dump();
}

std::string SentencePiece::description() const {
  const char* kind = model_.kind == SentencePieceModel::Kind::bpe ? "BPE" : "unigram";
  return concat("sentencepiece, ", kind, " of ", num_pieces(), " pieces, md5 ", to_hex(md5(bytes_)));
}

std::size_t SentencePiece::user_defined_length(std::string_view text) const {
  std::size_t longest = 0;
  user_defined_.for_each_prefix(text, [&](std::size_t length, std::int32_t) { longest = length; });
  return longest;
}

void SentencePiece::append_ids(std::string_view text, bool starts_document, std::vector<std::uint32_t>& ids) const {
  const std::string normal =
      normalizer_.normalize(text, starts_document, [&](std::string_view rest) { return user_defined_length(rest); });
  if (normal.empty()) return;
  const auto segments = model_.kind == SentencePieceModel::Kind::bpe ? segment_bpe(normal) : segment_unigram(normal);
  bool after_unknown = false;
  for (const Segment& segment : segments) {
    if (segment.id >= 0) {
      ids.push_back(static_cast<std::uint32_t>(segment.id));
    } else if (model_.byte_fallback) {
      for (const char c : segment.text) {
        const std::int32_t id = byte_ids_[static_cast<unsigned char>(c)];
        ids.push_back(static_cast<std::uint32_t>(id >= 0 ? id : model_.unknown_id));
      }
    } else if (!after_unknown) {  // a run of unknown characters is one piece
      ids.push_back(static_cast<std::uint32_t>(model_.unknown_id));
    }
    after_unknown = segment.id < 0;
  }
}

std::vector<SentencePiece::Segment> SentencePiece::segment_unigram(std::string_view normal) const {
  constexpr float kUnknownPenalty = 10;
  struct End {
    std::size_t start = 0;
    float score = 0;
    std::int32_t id = -1;
    bool reached = false;
  };
  std::vector<End> ends(normal.size() + 1);
  ends[0].reached = true;
  const float unknown_score = lowest_score_ - kUnknownPenalty;
  for (std::size_t start = 0; start < normal.size();) {
    const std::string_view rest = normal.substr(start);
    const std::size_t character = first_character(rest);
    const float so_far = ends[start].score;
    const auto offer = [&](std::size_t length, double score, std::int32_t id) {
      End& end = ends[start + length];
      if (end.reached && score <= static_cast<double>(end.score)) return;
      end = {.start = start, .score = static_cast<float>(score), .id = id, .reached = true};
    };
    bool has_character = false;
    pieces_.for_each_prefix(rest, [&](std::size_t length, std::int32_t id) {
      const auto& piece = model_.pieces[static_cast<std::size_t>(id)];
      const double score = piece.type == Type::user_defined
                               ? static_cast<double>(static_cast<float>(length) * highest_score_) - 0.1
                               : static_cast<double>(piece.score);
      offer(length, score + static_cast<double>(so_far), id);
      has_character |= length == character;
    });
    if (!has_character) offer(character, static_cast<double>(unknown_score + so_far), -1);
    start += character;
  }
  std::vector<Segment> segments;
  for (std::size_t end = normal.size(); end > 0; end = ends[end].start) {
    const std::size_t start = ends[end].start;
    segments.push_back({normal.substr(start, end - start), ends[end].id});
  }
  std::reverse(segments.begin(), segments.end());
  return segments;
}

std::vector<SentencePiece::Segment> SentencePiece::segment_bpe(std::string_view normal) const {
  struct Symbol {
    std::int32_t previous, next;  // -1: none
    bool is_whole;                // a user-defined piece, never merged
    std::string_view text;        // empty once merged into its left neighbour
  };
  struct Merge {
    float score;
    std::int32_t left, right;
    std::size_t size;  // of the merged text: tells a merge whose symbols have changed since
    bool operator<(const Merge& other) const { return score != other.score ? score < other.score : left > other.left; }
  };
  std::vector<Symbol> symbols;
  for (std::string_view rest = normal; !rest.empty();) {
    const std::size_t whole = user_defined_length(rest);
    const std::size_t size = whole > 0 ? whole : first_character(rest);
    const auto index = static_cast<std::int32_t>(symbols.size());
    symbols.push_back({index - 1, rest.size() > size ? index + 1 : -1, whole > 0, rest.substr(0, size)});
    rest.remove_prefix(size);
  }
  const auto at = [&](std::int32_t index) -> Symbol& { return symbols[static_cast<std::size_t>(index)]; };
  std::priority_queue<Merge> merges;
  const auto consider = [&](std::int32_t left, std::int32_t right) {
    if (left < 0 || right < 0 || at(left).is_whole || at(right).is_whole) return;
    const std::size_t size = at(left).text.size() + at(right).text.size();
    const std::int32_t id = pieces_.find({at(left).text.data(), size});
    if (id >= 0) merges.push({model_.pieces[static_cast<std::size_t>(id)].score, left, right, size});
  };
  for (std::int32_t i = 1; i < static_cast<std::int32_t>(symbols.size()); ++i) consider(i - 1, i);
  while (!merges.empty()) {
    const Merge merge = merges.top();
    merges.pop();
    Symbol &left = at(merge.left), &right = at(merge.right);
    if (left.text.empty() || right.text.empty() || left.text.size() + right.text.size() != merge.size) continue;
    left.text = {left.text.data(), merge.size};
    left.next = right.next;
    if (right.next >= 0) at(right.next).previous = merge.left;
    right.text = {};
    consider(left.previous, merge.left);
    consider(merge.left, left.next);
  }
  std::vector<Segment> segments;
  for (std::int32_t i = symbols.empty() ? -1 : 0; i >= 0; i = at(i).next) {
    segments.push_back({at(i).text, pieces_.find(at(i).text)});
  }
  return segments;
}

void SentencePiece::append_text(std::int64_t id, std::string& text) const {
  if (id >= num_pieces()) return;
  const auto& piece = model_.pieces[static_cast<std::size_t>(id)];
  switch (piece.type) {
    case Type::control:
      return;
    case Type::unknown:
      text += model_.unknown_surface;
      return;
    case Type::byte:
      if (piece.text.size() == 6) {
        text += static_cast<char>((hex_value(piece.text[3]) * 16 + hex_value(piece.text[4])) & 255);
      }
      return;
    default:
      break;
  }
  for (std::string_view rest = piece.text; !rest.empty();) {
    const bool is_space = rest.starts_with(kSpaceMark);
    text += is_space ? ' ' : rest[0];
    rest.remove_prefix(is_space ? kSpaceMark.size() : 1);
  }
}

}  // namespace comba::data
