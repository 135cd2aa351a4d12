#include "data/normalizer.h"

#include <algorithm>
#include <cstring>

#include "base/message.h"

namespace comba::data {
namespace {

constexpr std::size_t kMostReplacementBytes = 256;

}  // namespace

std::size_t character_bytes(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  if (text.empty()) return 0;
  if (byte(0) < 0x80) return 1;
  const std::size_t size = byte(0) >= 0xf0 ? 4 : byte(0) >= 0xe0 ? 3 : 2;
  if (byte(0) < 0xc2 || byte(0) > 0xf4 || text.size() < size) return 0;
  for (std::size_t i = 1; i < size; ++i) {
    if ((byte(i) & 0xc0) != 0x80) return 0;
  }
  const bool overlong = (byte(0) == 0xe0 && byte(1) < 0xa0) || (byte(0) == 0xf0 && byte(1) < 0x90);
  const bool no_character = (byte(0) == 0xed && byte(1) >= 0xa0) || (byte(0) == 0xf4 && byte(1) >= 0x90);
  return overlong || no_character ? 0 : size;
}

Normalizer::Normalizer(const SentencePieceModel& model, const std::string& where)
    : add_dummy_prefix_(model.add_dummy_prefix), remove_extra_whitespaces_(model.remove_extra_whitespaces) {
  const std::string& map = model.character_map;
  if (map.empty()) return;
  std::uint32_t trie_bytes = 0;
  if (map.size() >= sizeof trie_bytes) std::memcpy(&trie_bytes, map.data(), sizeof trie_bytes);
  const bool sane = trie_bytes >= 4 && trie_bytes % 4 == 0 && trie_bytes <= map.size() - 4 && map.back() == '\0' &&
                    trie_bytes < map.size() - 4;
  require(sane, ErrorCode::io, "[SentencePiece] '", where, "': the map of characters must hold a trie and texts; got ",
          map.size(), " bytes, of them a trie of ", trie_bytes, " (damaged file?)");
  units_.resize(trie_bytes / 4);
  std::memcpy(units_.data(), map.data() + 4, trie_bytes);
  replacements_ = map.substr(4 + trie_bytes);
  // So that no text grows without bounds: the longest replacement of Unicode's NFKC has 33 bytes.
  std::size_t length = 0;
  for (const char c : replacements_) {
    length = c == '\0' ? 0 : length + 1;
    require(length <= kMostReplacementBytes, ErrorCode::io, "[SentencePiece] '", where,
            "': what a character is replaced by must have at most ", kMostReplacementBytes,
            " bytes; got more (damaged file?)");
  }
}

Normalizer::Step Normalizer::replace(std::string_view text) const {
  Step longest = {0, {}};
  if (units_.empty()) return longest;
  // The layout of darts-clone's double arrays.
  const auto offset = [](std::uint32_t unit) { return (unit >> 10) << ((unit & (1u << 9)) >> 6); };
  const auto label = [](std::uint32_t unit) { return unit & ((1u << 31) | 0xff); };
  std::uint32_t position = offset(units_[0]);
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    position ^= byte;
    if (position >= units_.size() || label(units_[position]) != byte) break;
    const std::uint32_t unit = units_[position];
    position ^= offset(unit);
    const bool ends_key = (unit >> 8 & 1) != 0;
    if (!ends_key || position >= units_.size()) continue;
    const std::uint32_t value = units_[position] & 0x7fffffffu;
    if (value < replacements_.size()) longest = {i + 1, replacements_.data() + value};
  }
  return longest;
}

Normalizer::Step Normalizer::step(std::string_view text) const {
  const Step replaced = replace(text);
  if (replaced.consumed > 0) return replaced;
  const std::size_t size = std::max<std::size_t>(1, character_bytes(text));
  return {size, text.substr(0, size)};
}

std::string Normalizer::normalize(std::string_view text, bool starts_document,
                                  const std::function<std::size_t(std::string_view)>& keep_length) const {
  const auto next = [&]() -> Step {
    const std::size_t kept = keep_length(text);
    return kept > 0 ? Step{kept, text.substr(0, kept)} : step(text);
  };
  if (starts_document && remove_extra_whitespaces_) {
    while (!text.empty()) {
      const Step first = next();
      if (first.output != " ") break;
      text.remove_prefix(first.consumed);
    }
  }
  std::string normal;
  if (text.empty()) return normal;
  normal.reserve(text.size() + text.size() / 4);
  if (starts_document && add_dummy_prefix_) normal += kSpaceMark;
  bool after_space = starts_document && remove_extra_whitespaces_;
  while (!text.empty()) {
    const Step found = next();
    std::string_view output = found.output;
    while (after_space && output.starts_with(' ')) output.remove_prefix(1);
    for (const char c : output) {
      if (c == ' ') {
        normal += kSpaceMark;
      } else {
        normal += c;
      }
    }
    if (!output.empty()) after_space = remove_extra_whitespaces_ && output.ends_with(' ');
    text.remove_prefix(found.consumed);
  }
  if (remove_extra_whitespaces_) {
    while (normal.ends_with(kSpaceMark)) normal.resize(normal.size() - kSpaceMark.size());
  }
  return normal;
}

}  // namespace comba::data
