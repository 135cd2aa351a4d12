#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "data/sentencepiece_model.h"

namespace comba::data {

/// How a space is written inside pieces: U+2581.
constexpr std::string_view kSpaceMark = "\xE2\x96\x81";

/// Bytes of the UTF-8 character at the start of `text`; 0 when there is no valid one.
std::size_t character_bytes(std::string_view text);

/// Text as the pieces of a SentencePiece model spell it: characters replaced by the model's map, spaces by kSpaceMark.
///
/// The map is SentencePiece's precompiled_charsmap: u32 size of a double-array trie in bytes, its u32 units, then
/// NUL-terminated replacements that the values of the trie are offsets of. Of all keys that the text goes on with, the
/// longest is replaced.
class Normalizer {
 public:
  /// Throws Error (io) when the map is damaged.
  Normalizer(const SentencePieceModel& model, const std::string& where);

  /// `starts_document`: no text came before. `keep_length(rest)` tells how many bytes at the start of `rest` are to
  /// stay as they are (user-defined pieces). Bytes that are no UTF-8 come out as they are.
  std::string normalize(std::string_view text, bool starts_document,
                        const std::function<std::size_t(std::string_view)>& keep_length) const;

 private:
  struct Step {
    std::size_t consumed;
    std::string_view output;
  };
  Step step(std::string_view text) const;
  /// The replacement of the longest key at the start of `text`; consumed 0 when there is none.
  Step replace(std::string_view text) const;

  bool add_dummy_prefix_, remove_extra_whitespaces_;
  std::vector<std::uint32_t> units_;
  std::string replacements_;
};

}  // namespace comba::data
