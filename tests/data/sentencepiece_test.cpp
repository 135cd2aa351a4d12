#include "data/sentencepiece.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <random>

#include "base/file.h"
#include "comba/error.h"
#include "data/pack.h"
#include "support/temporary_directory.h"

namespace comba::data {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

const fs::path kFixtures = fs::path(COMBA_SOURCE_DIR) / "tests/data/fixtures";

class SentencePieceTest : public ::testing::TestWithParam<const char*> {
 protected:
  std::string file(const char* ending) const { return (kFixtures / GetParam()).string() + ending; }
  Tokenizer open() const { return Tokenizer::from_sentencepiece(file(".model")); }
};

TEST_P(SentencePieceTest, GivesTheLibrarysIdsAndTexts) {
  const Tokenizer tokenizer = open();
  for (const auto& row : nlohmann::json::parse(read_file(file(".json")))) {
    const auto text = row[0].get<std::string>();
    const auto expected = row[1].get<std::vector<std::int64_t>>();
    const auto ids = tokenizer.encode(text);
    EXPECT_EQ(ids, expected) << "'" << text << "'";
    std::vector<std::int64_t> document = {tokenizer.bos()};
    document.insert(document.end(), expected.begin(), expected.end());
    EXPECT_EQ(tokenizer.decode(document), row[2].get<std::string>()) << "'" << text << "'";
  }
}

TEST_P(SentencePieceTest, SurvivesItsJson) {
  const Tokenizer tokenizer = open(), again = Tokenizer::from_json(tokenizer.to_json(), "file");
  EXPECT_EQ(again.to_json(), tokenizer.to_json());
  EXPECT_EQ(again.description(), tokenizer.description());
  EXPECT_EQ(again.vocab(), tokenizer.vocab());
  EXPECT_EQ(again.bos(), 1);
  EXPECT_EQ(again.encode("the state"), tokenizer.encode("the state"));
}

TEST_P(SentencePieceTest, ACutFileIsRefused) {
  const std::string whole = read_file(file(".model"));
  std::size_t refused = 0, cuts = 0;
  for (std::size_t size = 0; size < whole.size(); size += 1 + whole.size() / 500, ++cuts) {
    try {
      SentencePiece(whole.substr(0, size), "cut.model");
    } catch (const Error& error) {
      ++refused;
      EXPECT_EQ(error.code(), ErrorCode::io);
      EXPECT_THAT(error.what(), HasSubstr("cut.model"));
    }
  }
  EXPECT_GT(refused, cuts * 3 / 4) << "a cut between two pieces leaves a smaller model, any other must be seen";
}

TEST_P(SentencePieceTest, DamagedFilesAreRefusedOrWork) {
  const std::string whole = read_file(file(".model"));
  std::minstd_rand random(7);
  for (int i = 0; i < 300; ++i) {
    std::string damaged = whole;
    for (int j = 0; j < 3; ++j) damaged[random() % damaged.size()] = static_cast<char>(random());
    try {
      const Tokenizer tokenizer(std::make_shared<SentencePiece>(damaged, "file"));
      tokenizer.decode(tokenizer.encode("the state of größe ☃ \xff"));
    } catch (const Error&) {
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Models, SentencePieceTest, ::testing::Values("unigram", "bpe", "nfkc", "prefix_bpe"));

TEST(SentencePiece, BytesThatAreNoTextSurvive) {
  for (const char* name : {"unigram.model", "bpe.model"}) {
    const Tokenizer tokenizer = Tokenizer::from_sentencepiece(kFixtures / name);
    std::string text = "the ";
    for (int byte = 0; byte < 256; ++byte) text += static_cast<char>(byte);
    text += "\xC3 \xE2\x96 state\xF0\x9F\x98";
    EXPECT_EQ(tokenizer.decode(tokenizer.encode(text)), text) << name;
  }
}

TEST(SentencePiece, WhatIsNoModelIsNamed) {
  const testing::TemporaryDirectory directory;
  const struct {
    std::string content;
    const char* message;
  } cases[] = {
      {"", "must have one piece for what is unknown; got 0"},
      {"This is a text, not a model.\n", "(not such a file, or damaged)"},
      {std::string("\x0a\x02\x0a\x00", 4), "pieces must be different and not empty; got another at piece 0"},
      {"\x0a\x0a\x0a\x01"
       "a\x15\x00\x00\xc0\x7f"
       "\x18\x01",
       ""},
      {"\x12\x02\x18\x03", "must be a unigram or BPE model that marks spaces before words; got a model of words"},
      {std::string("\x1a\x02\x28\x00", 4), "got spaces as they are"},
      {"\x0a\x05\x0a\x01"
       "a\x18\x07",
       "a piece's type must be in 1..6; got 7"},
  };
  for (const auto& [content, message] : cases) {
    const fs::path path = directory.path() / "x.model";
    std::ofstream(path, std::ios::binary) << content;
    try {
      Tokenizer::from_sentencepiece(path);
      ADD_FAILURE() << "accepted; expected: " << message;
    } catch (const Error& error) {
      EXPECT_THAT(error.what(), HasSubstr(message));
      EXPECT_THAT(error.what(), HasSubstr("x.model"));
    }
  }
}

TEST(SentencePiece, PacksWholeTextsInPieces) {
  const testing::TemporaryDirectory directory;
  std::string text;
  for (int i = 0; text.size() < 700000; ++i)
    text += "the state decays " + std::to_string(i) + (i % 9 == 0 ? "\n" : "  ");
  std::ofstream(directory.path() / "a.txt") << text;
  const fs::path data = directory.path() / "data";
  const Tokenizer tokenizer = Tokenizer::from_sentencepiece(kFixtures / "unigram.model");
  pack({.inputs = {directory.path() / "a.txt"}, .output = data, .tokenizer = tokenizer});
  const TokenDataset dataset = TokenDataset::open(data, Split::train);
  EXPECT_EQ(dataset.tokenizer().to_json(), tokenizer.to_json());
  EXPECT_EQ(dataset.num_bytes(), static_cast<std::int64_t>(text.size()));
  std::vector<std::int64_t> ids(static_cast<std::size_t>(dataset.num_tokens()));
  dataset.read_tokens(0, ids);
  EXPECT_EQ(ids[0], 1);
  EXPECT_TRUE(dataset.tokenizer().decode(ids) == text);
  EXPECT_LT(ids.size(), text.size() / 2);
}

}  // namespace
}  // namespace comba::data
