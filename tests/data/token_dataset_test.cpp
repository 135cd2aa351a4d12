#include "data/token_dataset.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <fstream>
#include <functional>
#include <limits>

#include "base/file.h"
#include "comba/error.h"
#include "data/pack.h"
#include "support/temporary_directory.h"

namespace comba::data {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

/// A data set of three documents, to be read and damaged.
class TokenDatasetTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const fs::path input = temporary_.path() / "input";
    fs::create_directories(input);
    std::ofstream(input / "a.txt") << "first";
    std::ofstream(input / "b.txt") << "2nd";
    std::ofstream(input / "d.txt") << "third one";
    pack({.inputs = {input}, .output = directory()});
  }

  fs::path directory() const { return temporary_.path() / "data"; }
  TokenDataset open() const { return TokenDataset::open(directory(), Split::train); }

  void change(const std::string& file, const std::function<void(std::string&)>& edit) const {
    std::string content = read_file(directory() / file);
    edit(content);
    write_file_atomically(directory() / file, content);
  }

  void replace_in_index(const std::string& from, const std::string& to) const {
    change("index.json", [&](std::string& text) {
      const std::size_t place = text.find(from);
      ASSERT_NE(place, std::string::npos) << from << " is not in " << text;
      text.replace(place, from.size(), to);
    });
  }

  /// Sets one of the three numbers of a document.
  void set_record(int document, int field, std::uint64_t value) const {
    change("train.documents",
           [&](std::string& bytes) { std::memcpy(bytes.data() + document * 24 + field * 8, &value, sizeof value); });
  }

  void expect_refusal(const std::string& message) const {
    try {
      open();
      ADD_FAILURE() << "opened; expected: " << message;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::io);
      EXPECT_THAT(error.what(), HasSubstr(message));
      EXPECT_THAT(error.what(), HasSubstr(directory().string())) << "the message must name the file";
    }
  }

 private:
  testing::TemporaryDirectory temporary_;
};

TEST_F(TokenDatasetTest, KnowsItsDocuments) {
  const TokenDataset dataset = open();
  EXPECT_EQ(dataset.num_documents(), 3);
  EXPECT_EQ(dataset.num_tokens(), 6 + 4 + 10);
  const Document document = dataset.document(1);
  EXPECT_EQ(document.path, "b.txt");
  EXPECT_EQ(document.first_token, 6);
  EXPECT_EQ(document.num_tokens, 4);
  EXPECT_EQ(document.num_bytes, 3);
  EXPECT_THROW(dataset.document(3), Error);
  EXPECT_THROW(dataset.document(-1), Error);
}

TEST_F(TokenDatasetTest, FindsTheDocumentOfEveryToken) {
  const TokenDataset dataset = open();
  for (std::int64_t position = 0; position < dataset.num_tokens(); ++position) {
    const Document document = dataset.document(dataset.document_at(position));
    EXPECT_LE(document.first_token, position);
    EXPECT_LT(position, document.first_token + document.num_tokens);
  }
  EXPECT_THROW(dataset.document_at(-1), Error);
  EXPECT_THROW(dataset.document_at(dataset.num_tokens()), Error);
}

TEST_F(TokenDatasetTest, ReadsAcrossDocumentsAndNoFurther) {
  const TokenDataset dataset = open();
  std::vector<std::int64_t> ids(5);
  dataset.read_tokens(4, ids);
  EXPECT_THAT(ids, ::testing::ElementsAre('s', 't', 256, '2', 'n'));
  dataset.read_tokens(dataset.num_tokens(), std::span<std::int64_t>());
  constexpr auto kLargest = std::numeric_limits<std::int64_t>::max();
  for (const std::int64_t first :
       {std::int64_t{-1}, dataset.num_tokens() - 4, dataset.num_tokens(), kLargest, -kLargest}) {
    EXPECT_THROW(dataset.read_tokens(first, ids), Error) << first;
  }
}

TEST_F(TokenDatasetTest, AnEmptySplitOpens) {
  const TokenDataset dataset = TokenDataset::open(directory(), Split::heldout);
  EXPECT_EQ(dataset.num_documents(), 0);
  EXPECT_EQ(dataset.num_tokens(), 0);
  EXPECT_THROW(dataset.document_at(0), Error);
}

TEST_F(TokenDatasetTest, OutlivesItsMove) {
  TokenDataset first = open();
  const TokenDataset second = std::move(first);
  std::vector<std::int64_t> ids(1);
  second.read_tokens(1, ids);
  EXPECT_EQ(ids[0], 'f');
}

TEST_F(TokenDatasetTest, RefusesFilesOfTheWrongSize) {
  for (const char* file : {"train-00000.tokens", "train.documents", "train.paths"}) {
    const std::string whole = read_file(directory() / file);
    change(file, [](std::string& bytes) { bytes.pop_back(); });
    expect_refusal(std::string(file) + "' must have " + std::to_string(whole.size()) + " bytes");
    change(file, [&](std::string& bytes) { bytes = whole + '\0'; });
    expect_refusal(file);
    fs::remove(directory() / file);
    expect_refusal(std::string(file) + "': No such file or directory");
    write_file_atomically(directory() / file, whole);
  }
  EXPECT_NO_THROW(open());
}

TEST_F(TokenDatasetTest, RefusesDamagedJson) {
  const std::string whole = read_file(directory() / "index.json");
  for (const std::string& text : {std::string(), whole.substr(0, whole.size() / 2), std::string("[1, 2]"),
                                  std::string("null"), "\xff" + whole, std::string(100000, '['), std::string(1000, '{'),
                                  "{\"format\": " + std::string(100000, '[') + std::string(100000, ']') + "}"}) {
    write_file_atomically(directory() / "index.json", text);
    expect_refusal("index.json");
  }
}

TEST_F(TokenDatasetTest, RefusesWrongFieldsOfTheIndex) {
  const std::string whole = read_file(directory() / "index.json");
  const struct {
    const char *from, *to, *message;
  } cases[] = {
      {"\"comba-tokens\"", "\"other\"", "format must be \"comba-tokens\"; got \"other\""},
      {"\"version\": 2", "\"version\": 1", "version must be 2; got 1 (pack the text again with this program)"},
      {"\"version\"", "\"Version\"", "version is missing"},
      {"\"type\": \"bytes\"", "\"type\": \"words\"",
       "type must be \"bytes\", \"sentencepiece\" or \"table\"; got \"words\""},
      {"\"vocab\": 257", "\"vocab\": 32000", "vocab must be 257"},
      {"\"token_bytes\": 2", "\"token_bytes\": 4", "token_bytes must be 2"},
      {"\"shard_tokens\": 268435456", "\"shard_tokens\": 0", "shard_tokens must be at least 1; got 0"},
      {"\"shard_tokens\": 268435456", "\"shard_tokens\": 7", "train-00000.tokens' must have 14 bytes"},
      {"\"loss_mask\": false", "\"loss_mask\": 0", "loss_mask must be true or false; got 0"},
      {"\"loss_mask\": false", "\"loss_mask\": true", "train-00000.loss': No such file"},
      {"\"comba-tokens\"", "[[1]]", "format must be \"comba-tokens\"; got an array"},
      {"\"tokens\": 20", "\"tokens\": -20", "splits.train.tokens must be a count; got -20"},
      {"\"tokens\": 20", "\"tokens\": 20.5", "splits.train.tokens must be a count"},
      {"\"tokens\": 20", "\"tokens\": \"20\"", "splits.train.tokens must be a count"},
      {"\"tokens\": 20", "\"tokens\": 9223372036854775807", "splits.train.tokens must be a count"},
      {"\"tokens\": 20", "\"tokens\": 21", "train-00000.tokens' must have 42 bytes"},
      {"\"documents\": 3", "\"documents\": 288230376151711743", "train.documents' must have"},
      {"\"documents\": 3", "\"documents\": 2", "train.documents' must have 48 bytes"},
      {"\"bytes\": 17", "\"bytes\": 18", "must cover 20 tokens of 18 bytes"},
      {"\"train\": {", "\"training\": {", "splits.train is missing"},
      {"\"splits\": {", "\"splits\": 1, \"other\": {", "splits must be a JSON object"},
  };
  for (const auto& [from, to, message] : cases) {
    replace_in_index(from, to);
    expect_refusal(message);
    write_file_atomically(directory() / "index.json", whole);
  }
  EXPECT_NO_THROW(open());
}

TEST_F(TokenDatasetTest, RefusesDocumentsThatDoNotFollowEachOther) {
  const std::string whole = read_file(directory() / "train.documents");
  constexpr std::uint64_t kHuge = std::numeric_limits<std::uint64_t>::max();
  const struct {
    int document, field;
    std::uint64_t value;
  } cases[] = {
      {0, 0, 1}, {1, 0, 5}, {1, 0, kHuge}, {2, 0, 0},                                  // first token
      {0, 1, 0}, {0, 1, 6}, {1, 1, kHuge}, {2, 1, 8}, {2, 1, 10}, {1, 1, kHuge - 20},  // bytes of text
      {0, 2, 1}, {1, 2, 0}, {2, 2, kHuge},                                             // first byte of the path
  };
  for (const auto& [document, field, value] : cases) {
    set_record(document, field, value);
    expect_refusal("train.documents");
    write_file_atomically(directory() / "train.documents", whole);
  }
  EXPECT_NO_THROW(open());
}

TEST_F(TokenDatasetTest, RefusesPathsWithoutEnd) {
  change("train.paths", [](std::string& bytes) { bytes.back() = 'x'; });
  expect_refusal("document 2 has no path");
  change("train.paths", [](std::string& bytes) { bytes[2] = '\0', bytes.back() = '\0'; });
  expect_refusal("train.documents");
}

// Each of these changes agrees with all the file sizes; only the documents themselves tell that it is wrong.
TEST_F(TokenDatasetTest, RefusesDocumentsThatReachBeyondTheTokens) {
  change("train-00000.tokens", [](std::string& bytes) { bytes.resize(2 * 19); });
  replace_in_index("\"tokens\": 20", "\"tokens\": 19");
  expect_refusal("document 2 of 19 tokens must follow the one before it");
}

TEST_F(TokenDatasetTest, RefusesPathsWithoutDocument) {
  change("train.paths", [](std::string& bytes) { bytes += std::string("e.txt\0", 6); });
  replace_in_index("\"path_bytes\": 18", "\"path_bytes\": 24");
  expect_refusal("train.documents' must cover");
}

TEST_F(TokenDatasetTest, RefusesEmptyDocuments) {
  const std::uint64_t record[] = {20, 0, 18};
  change("train-00000.tokens", [](std::string& bytes) { bytes += std::string("\0\1", 2); });
  change("train.documents", [&](std::string& bytes) { bytes.append(reinterpret_cast<const char*>(record), 24); });
  change("train.paths", [](std::string& bytes) { bytes += std::string("e.txt\0", 6); });
  replace_in_index("\"path_bytes\": 18", "\"path_bytes\": 24");
  replace_in_index("\"tokens\": 20", "\"tokens\": 21");
  replace_in_index("\"documents\": 3", "\"documents\": 4");
  expect_refusal("document 3 of 21 tokens must follow the one before it; got first token 20, 0 bytes");
}

TEST_F(TokenDatasetTest, RefusesIdsBeyondTheVocabulary) {
  change("train-00000.tokens",
         [](std::string& bytes) { bytes[2 * 7 + 1] = 1, bytes[2 * 7] = 1; });  // token 7 becomes 257
  const TokenDataset dataset = open();
  std::vector<std::int64_t> ids(4);
  EXPECT_NO_THROW(dataset.read_tokens(0, ids));
  try {
    dataset.read_tokens(5, ids);
    ADD_FAILURE() << "read a damaged token";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::io);
    EXPECT_THAT(error.what(), HasSubstr("token 7 must be below the vocabulary of 257; got 257"));
  }
}

// Shards of three tokens: documents, and pieces of them, lie across their borders.
TEST_F(TokenDatasetTest, ReadsAcrossShards) {
  const TokenDataset whole = open();
  const fs::path small = directory().parent_path() / "small";
  pack({.inputs = {directory().parent_path() / "input"}, .output = small, .shard_tokens = 3});
  EXPECT_EQ(fs::file_size(small / "train-00000.tokens"), 6u);
  EXPECT_EQ(fs::file_size(small / "train-00006.tokens"), 4u);
  EXPECT_FALSE(fs::exists(small / "train-00007.tokens"));
  const TokenDataset sharded = TokenDataset::open(small, Split::train);
  for (std::int64_t first = 0; first <= whole.num_tokens(); ++first) {
    std::vector<std::int64_t> expected(static_cast<std::size_t>(whole.num_tokens() - first)), found(expected.size());
    whole.read_tokens(first, expected);
    sharded.read_tokens(first, found);
    EXPECT_EQ(found, expected) << "from token " << first;
  }
  fs::remove(small / "train-00004.tokens");
  EXPECT_THROW(TokenDataset::open(small, Split::train), Error);
}

TEST_F(TokenDatasetTest, RefusesWhatIsNoDataSet) {
  for (const char* name : {"index.json", "nowhere"}) {
    try {
      TokenDataset::open(directory() / name, Split::train);
      ADD_FAILURE() << "opened " << name;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::io);
    }
  }
}

}  // namespace
}  // namespace comba::data
