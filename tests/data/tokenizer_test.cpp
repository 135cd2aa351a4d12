#include "data/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "comba/error.h"

namespace comba::data {
namespace {

using ::testing::HasSubstr;

TEST(Tokenizer, EveryByteSurvivesTheRoundTrip) {
  std::string text;
  for (int byte = 0; byte < 256; ++byte) text += static_cast<char>(byte);
  const Tokenizer tokenizer;
  const auto ids = tokenizer.encode(text);
  for (int byte = 0; byte < 256; ++byte) EXPECT_EQ(ids[byte], byte);
  EXPECT_EQ(tokenizer.decode(ids), text);
}

TEST(Tokenizer, IdsWithoutTextDecodeToNothing) {
  const std::int64_t ids[] = {256, 'a', 257, 263, 'b'};
  EXPECT_EQ(Tokenizer().decode(ids), "ab");
}

TEST(Tokenizer, ANegativeIdIsAnError) {
  const std::int64_t ids[] = {'a', -1};
  EXPECT_THROW(Tokenizer().decode(ids), Error);
}

TEST(Tokenizer, ReadsItsOwnJson) {
  const Tokenizer tokenizer = Tokenizer::from_json(Tokenizer().to_json(), "file");
  EXPECT_EQ(tokenizer.vocab(), 257);
  EXPECT_EQ(tokenizer.bos(), 256);
}

TEST(Tokenizer, RefusesOtherJsonNamingTheFile) {
  for (const char* text :
       {"", "{", "[]", "{}", R"({"type": 3})", R"({"type": "sentencepiece"})", "{\"type\": \"\xff\"}"}) {
    try {
      Tokenizer::from_json(text, "some/file.json");
      ADD_FAILURE() << "accepted " << text;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::io);
      EXPECT_THAT(error.what(), HasSubstr("some/file.json"));
    }
  }
}

}  // namespace
}  // namespace comba::data
