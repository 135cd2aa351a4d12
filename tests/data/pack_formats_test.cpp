#include <cstdio>
#include <cstdlib>

#include "base/file.h"
#include "comba/parallel.h"
#include "pack_fixture.h"

namespace comba::data {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

class PackFormatsTest : public PackTest {};

// ---- records ----

TEST_F(PackFormatsTest, RecordsAreDocuments) {
  write("a.jsonl", "{\"text\": \"first \\u00e9\", \"id\": 1}\n\n  \r\n{\"id\": 2, \"text\": \"2nd\"}");
  write("b.txt", "plain");
  pack(options());
  EXPECT_THAT(paths(Split::train), ElementsAre("a.jsonl:1", "a.jsonl:4", "b.txt"));
  EXPECT_EQ(text(Split::train, 0), "first \xC3\xA9");
  EXPECT_EQ(text(Split::train, 1), "2nd");
}

TEST_F(PackFormatsTest, RecordsAreHeldOutByTheirLineAndPackedOnce) {
  std::string lines;
  for (int i = 0; i < 200; ++i) lines += "{\"text\": \"text " + std::to_string(i % 150) + "\"}\n";
  write("a.jsonl", lines + "{\"text\": \"\"}\n");
  const PackReport report = pack(options());
  EXPECT_EQ(report.num_duplicates, 50);
  EXPECT_EQ(report.num_empty, 1);
  const auto heldout = paths(Split::heldout);
  EXPECT_FALSE(heldout.empty());
  for (const std::string& path : heldout) EXPECT_TRUE(is_held_out(path)) << path;
  for (const std::string& path : paths(Split::train)) EXPECT_FALSE(is_held_out(path)) << path;
  EXPECT_EQ(paths(Split::train).size() + heldout.size(), 150u);
  PackOptions packing = options();
  packing.overwrite = packing.keep_duplicates = true;
  EXPECT_EQ(pack(packing).num_duplicates, 0);
  EXPECT_EQ(paths(Split::train).size() + paths(Split::heldout).size(), 200u);
}

TEST_F(PackFormatsTest, RecordsThatAreNoneAreNamed) {
  const struct {
    const char *line, *message;
  } cases[] = {
      {"{\"text\": \"x\"", "a.jsonl:2 must be a line with one JSON object; got no JSON"},
      {"[1]", "a.jsonl:2 must be a line with one JSON object; got an array"},
      {"{\"Text\": \"x\"}", "a.jsonl:2 must have the field \"text\" (see --text-field); got \"Text\""},
      {"{\"text\": 3}", "a.jsonl:2: the field \"text\" must be a text; got 3"},
      {"{\"text\": \"\xff\"}", "a.jsonl:2 must be a line with one JSON object"},
  };
  for (const auto& [line, message] : cases) {
    write("a.jsonl", std::string("{\"text\": \"good\"}\n") + line + "\n");
    expect_failure(options(), ErrorCode::io, message);
    EXPECT_THAT(leftovers(), IsEmpty());
  }
}

TEST_F(PackFormatsTest, AnotherFieldMayHoldTheText) {
  write("a.jsonl", "{\"content\": \"x\", \"text\": \"y\"}\n");
  PackOptions packing = options();
  packing.records.text = "content";
  pack(packing);
  EXPECT_EQ(text(Split::train, 0), "x");
}

TEST_F(PackFormatsTest, PromptsAreReadButNotLearned) {
  write("a.jsonl", "{\"q\": \"why?\", \"a\": \"so\"}\n{\"q\": \"\", \"a\": \"ok\"}\n{\"q\": \"?\", \"a\": \"\"}\n");
  PackOptions packing = options();
  packing.records = {.text = "a", .prompt = "q"};
  packing.shard_tokens = 4;
  EXPECT_EQ(pack(packing).num_empty, 1);
  const TokenDataset dataset = TokenDataset::open(output(), Split::train);
  EXPECT_TRUE(dataset.has_loss_mask());
  EXPECT_EQ(text(Split::train, 0), "why?so");
  std::vector<std::int64_t> labels(static_cast<std::size_t>(dataset.num_tokens()));
  dataset.read_labels(0, labels);
  constexpr std::int64_t kNo = kIgnoredLabel;
  EXPECT_THAT(labels, ElementsAre(256, kNo, kNo, kNo, kNo, 's', 'o', 256, 'o', 'k'));
  packing.holdout = Holdout::tail;
  packing.overwrite = true;
  expect_failure(packing, ErrorCode::invalid_argument, "hold out whole documents; got the prompt field \"q\"");
}

TEST_F(PackFormatsTest, WithoutPromptsEveryTokenIsALabel) {
  write("a.txt", "text");
  pack(options());
  const TokenDataset dataset = TokenDataset::open(output(), Split::train);
  EXPECT_FALSE(dataset.has_loss_mask());
  std::vector<std::int64_t> labels(5);
  dataset.read_labels(0, labels);
  EXPECT_THAT(labels, ElementsAre(256, 't', 'e', 'x', 't'));
}

// ---- compression ----

class CompressedPackTest : public PackTest {
 protected:
  /// Compresses a file with the system's program.
  void compress(const char* program, const std::string& relative_path) const {
    const std::string command = std::string(program) + " '" + (input() / relative_path).string() + "'";
    ASSERT_EQ(std::system(command.c_str()), 0);
  }
};

TEST_F(CompressedPackTest, CompressedFilesAreTheirContent) {
  std::string long_text;
  for (int line = 0; line < 120000; ++line) long_text += std::to_string(line * 7919) + "\n";
  for (const auto& [program, ending] : {std::pair("gzip", ".gz"), std::pair("zstd -q --rm", ".zst")}) {
    write("a.txt", long_text);
    write("b.jsonl", "{\"text\": \"record\"}\n");
    compress(program, "a.txt");
    compress(program, "b.jsonl");
    PackOptions packing = options();
    packing.overwrite = true;
    pack(packing);
    EXPECT_THAT(paths(Split::train),
                ElementsAre(std::string("a.txt") + ending, std::string("b.jsonl") + ending + ":1"));
    EXPECT_EQ(text(Split::train, 0), long_text) << ending;
    EXPECT_EQ(text(Split::train, 1), "record") << ending;
    fs::remove_all(input());
  }
}

TEST_F(CompressedPackTest, SeveralMembersAreOneText) {
  for (const auto& [program, ending] : {std::pair("gzip", ".gz"), std::pair("zstd -q --rm", ".zst")}) {
    const std::string name = std::string("a.txt") + ending;
    write("a.txt", "first, ");
    compress(program, "a.txt");
    const std::string first = read_file(input() / name);
    fs::remove(input() / name);
    write("a.txt", "second");
    compress(program, "a.txt");
    const std::string second = read_file(input() / name);
    write(name, first + second);
    PackOptions packing = options();
    packing.overwrite = true;
    pack(packing);
    EXPECT_EQ(text(Split::train, 0), "first, second") << ending;

    write(name, (first + second).substr(0, first.size() + second.size() / 2));
    expect_failure(packing, ErrorCode::io, name + "' must be whole");
    write(name, "no such data");
    expect_failure(packing, ErrorCode::io, "data, as its name says");
    packing.holdout = Holdout::tail;
    expect_failure(packing, ErrorCode::invalid_argument, "unpack it, or hold out whole files; got '");
    fs::remove_all(input());
  }
}

// ---- what does not depend on how it is done ----

TEST_F(PackFormatsTest, TheNumberOfThreadsChangesNothing) {
  std::string lines;
  for (int i = 0; i < 3000; ++i) lines += "{\"text\": \"text " + std::to_string(i % 2500) + "\"}\n";
  write("a.jsonl", lines);
  write("b.txt", std::string(9 << 20, 'x') + "end");
  for (int i = 0; i < 50; ++i) write("f" + std::to_string(i) + ".txt", "text " + std::to_string(i));
  const int threads_before = num_threads();
  std::vector<fs::path> packed;
  for (const int threads : {1, 2, 5}) {
    set_num_threads(threads);
    PackOptions packing = options();
    packing.output = directory_.path() / ("with" + std::to_string(threads));
    packing.shard_tokens = 1000000;
    pack(packing);
    packed.push_back(packing.output);
  }
  set_num_threads(threads_before);
  for (const auto& entry : fs::directory_iterator(packed[0])) {
    for (const fs::path& other : {packed[1], packed[2]}) {
      EXPECT_TRUE(read_file(entry.path()) == read_file(other / entry.path().filename())) << entry.path();
    }
  }
}

TEST_F(PackFormatsTest, ADroppedDocumentTakesItsShardsWithIt) {
  write("a.txt", "0123456789");
  write("b.txt", "0123456789");
  write("d.txt", "last");
  PackOptions packing = options();
  packing.shard_tokens = 3;
  pack(packing);
  EXPECT_THAT(paths(Split::train), ElementsAre("a.txt", "d.txt"));
  EXPECT_EQ(text(Split::train, 0), "0123456789");
  EXPECT_EQ(text(Split::train, 1), "last");
  EXPECT_TRUE(fs::exists(output() / "train-00005.tokens"));
  EXPECT_FALSE(fs::exists(output() / "train-00006.tokens"));
}

}  // namespace
}  // namespace comba::data
