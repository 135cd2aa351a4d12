#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace comba::data {

/// Turns text into token ids and back. The only kind so far is "bytes": ids 0..255 are the bytes themselves and 256 is
/// BOS, which opens every document and is never predicted.
class Tokenizer {
 public:
  /// Reads what to_json() wrote. `where` names the text's origin in errors (io).
  static Tokenizer from_json(const std::string& json_text, const std::string& where);
  /// {"type": "bytes"}
  std::string to_json() const;

  /// Number of ids. A model may have more rows (padding); it must not have fewer.
  std::int64_t vocab() const { return 257; }
  std::int64_t bos() const { return 256; }

  /// Ids of `text`, without BOS.
  std::vector<std::int64_t> encode(std::string_view text) const;
  /// Text of `ids`. BOS and ids of padding rows stand for nothing; a negative id is an error.
  std::string decode(std::span<const std::int64_t> ids) const;
};

}  // namespace comba::data
