#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace comba::data {

/// What a Tokenizer that is not "bytes" consists of. Immutable, so that copies of a tokenizer may share it.
class TokenizerModel {
 public:
  virtual ~TokenizerModel() = default;

  virtual std::string to_json() const = 0;
  /// One line for people.
  virtual std::string description() const = 0;
  virtual std::int64_t vocab() const = 0;
  virtual std::int64_t bos() const = 0;
  /// Appends the ids of `text` to `ids`. `starts_document`: no text came before it.
  virtual void append_ids(std::string_view text, bool starts_document, std::vector<std::uint32_t>& ids) const = 0;
  /// Appends the text of one id, 0 <= id < vocab().
  virtual void append_text(std::int64_t id, std::string& text) const = 0;
  /// Whether encoding puts a space before a document, which decoding takes away again.
  virtual bool adds_leading_space() const = 0;
};

}  // namespace comba::data
