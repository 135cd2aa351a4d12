#include "utf8_stream.h"

#include <cstddef>
#include <cstdint>

namespace comba::cli {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD

struct Range {
  unsigned char first, last;
  bool contains(unsigned char byte) const { return byte >= first && byte <= last; }
};

/// Bytes of the character a byte starts; 0 when none starts so.
std::size_t length_of(unsigned char lead) {
  if (lead < 0x80) return 1;
  if (lead >= 0xC2 && lead < 0xE0) return 2;
  if (lead >= 0xE0 && lead < 0xF0) return 3;
  if (lead >= 0xF0 && lead < 0xF5) return 4;
  return 0;
}

/// Legal second bytes: narrower where a longer form, a surrogate or a number above U+10FFFF would start (Unicode, table
/// 3-7).
Range second_bytes(unsigned char lead) {
  switch (lead) {
    case 0xE0:
      return {0xA0, 0xBF};
    case 0xED:
      return {0x80, 0x9F};
    case 0xF0:
      return {0x90, 0xBF};
    case 0xF4:
      return {0x80, 0x8F};
    default:
      return {0x80, 0xBF};
  }
}

/// How many bytes at the start of `text` belong to its first character as far as they go. Precondition: not empty.
std::size_t well_formed_bytes(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const std::size_t length = length_of(byte(0));
  std::size_t count = length > 0 ? 1 : 0;
  while (count > 0 && count < length && count < text.size()) {
    const Range legal = count == 1 ? second_bytes(byte(0)) : Range{0x80, 0xBF};
    if (!legal.contains(byte(count))) break;
    ++count;
  }
  return count;
}

}  // namespace

std::string Utf8Stream::feed(std::string_view bytes) {
  pending_ += bytes;
  std::string text;
  std::string_view rest = pending_;
  while (!rest.empty()) {
    const std::size_t length = length_of(static_cast<unsigned char>(rest[0]));
    const std::size_t count = well_formed_bytes(rest);
    if (count < length && count == rest.size()) break;  // more may come
    if (count == length && count > 0) {
      text += rest.substr(0, count);
    } else {
      text += kReplacement;
    }
    rest.remove_prefix(count > 0 ? count : 1);
  }
  pending_ = std::string(rest);
  return text;
}

std::string Utf8Stream::finish() {
  const bool cut_short = !pending_.empty();
  pending_.clear();
  return std::string(cut_short ? kReplacement : "");
}

}  // namespace comba::cli
