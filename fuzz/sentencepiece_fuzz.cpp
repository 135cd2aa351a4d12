// Any bytes as a SentencePiece model, and any damage to a good one: loading, encoding and decoding must succeed or
// throw Error.
#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "comba/error.h"
#include "data/sentencepiece.h"
#include "data/tokenizer.h"

namespace {

/// One field of a protocol buffer message that holds bytes.
std::string field(int number, const std::string& content) {
  std::string text(1, static_cast<char>(number << 3 | 2));
  for (std::size_t size = content.size(); size > 0 || text.size() == 1; size >>= 7) {
    text += static_cast<char>((size & 127) | (size > 127 ? 128 : 0));
  }
  return text + content;
}

std::string piece(const std::string& text, char score, char type) {
  return field(1, field(1, text) + std::string("\x15\0\0", 3) + score + '\xc0' + "\x18" + type);
}

/// A model of a few pieces of every type, with a map of characters that makes 'A' into 'a'.
std::string whole_model(bool bpe) {
  std::string model = piece("<unk>", 0, 2) + piece("<s>", 0, 3) + piece("<sep>", 0, 4);
  char score = 1;
  for (const char* text : {"\xE2\x96\x81", "a", "b", "ab", "abc",
                           "\xE2\x96\x81"
                           "a",
                           "c"})
    model += piece(text, score++, 1);
  model += field(2, std::string("\x18") + (bpe ? '\2' : '\1'));
  // A double array of one key: see Normalizer.
  std::vector<std::uint32_t> units(256, 0);
  units[0] = 128u << 10;
  units[128 ^ 'A'] = 'A' | 1u << 8 | (1u << 10);
  units[(128 ^ 'A') ^ 1] = 0x80000000u;
  const auto trie_bytes = static_cast<std::uint32_t>(units.size() * 4);
  std::string map(reinterpret_cast<const char*>(&trie_bytes), 4);
  map.append(reinterpret_cast<const char*>(units.data()), trie_bytes);
  map += std::string("a\0", 2);
  return model + field(3, field(2, map));
}

void try_model(std::string model, const std::string& text) {
  try {
    const comba::data::Tokenizer tokenizer(std::make_shared<comba::data::SentencePiece>(std::move(model), "fuzz"));
    tokenizer.decode(tokenizer.encode(text));
    comba::data::Tokenizer::from_json(tokenizer.to_json(), "fuzz");
  } catch (const comba::Error&) {
    // A rule was broken, and said so.
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const std::string whole[] = {whole_model(false), whole_model(true)};
  const std::string bytes(reinterpret_cast<const char*>(data), size);
  try_model(bytes, "a text");
  if (size < 2) return 0;
  // The first bytes change the good model, in places told by two bytes each; the rest is a text for it.
  std::string model = whole[data[0] & 1];
  const std::size_t num_changes = data[1] % 8, used = std::min(size, 2 + 3 * num_changes);
  for (std::size_t i = 2; i + 3 <= used; i += 3) {
    // Half of the changes go to the pieces, which are a small part of the bytes.
    const std::size_t range = (data[i] & 1) != 0 ? 160 : model.size();
    model[(data[i] * 256u + data[i + 1]) % range] = static_cast<char>(data[i + 2]);
  }
  try_model(std::move(model), "Aab <sep> abcAB  \xE2\x96\x81 " + bytes.substr(used));
  return 0;
}
