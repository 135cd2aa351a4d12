#include "data/pack.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <csignal>
#include <cstdio>
#include <fstream>

#include "base/file.h"
#include "comba/error.h"
#include "comba/parallel.h"
#include "data/token_dataset.h"
#include "support/temporary_directory.h"

namespace comba::data {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class PackTest : public ::testing::Test {
 protected:
  void write(const std::string& relative_path, const std::string& content) {
    const fs::path path = input() / relative_path;
    fs::create_directories(path.parent_path());
    std::ofstream(path, std::ios::binary) << content;
  }

  fs::path input() const { return directory_.path() / "input"; }
  fs::path output() const { return directory_.path() / "output"; }
  PackOptions options() const { return {.inputs = {input()}, .output = output()}; }

  std::vector<std::string> paths(Split split) const {
    const TokenDataset dataset = TokenDataset::open(output(), split);
    std::vector<std::string> paths;
    for (std::int64_t i = 0; i < dataset.num_documents(); ++i) paths.push_back(dataset.document(i).path);
    return paths;
  }

  std::string text(Split split, std::int64_t document_index) const {
    const TokenDataset dataset = TokenDataset::open(output(), split);
    const Document document = dataset.document(document_index);
    std::vector<std::int64_t> ids(document.num_tokens);
    dataset.read_tokens(document.first_token, ids);
    EXPECT_EQ(ids.front(), dataset.tokenizer().bos());
    return dataset.tokenizer().decode(ids);
  }

  /// Everything in the temporary directory but the input: what a pack left behind.
  std::vector<std::string> leftovers() const {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(directory_.path())) {
      if (entry.path() != input()) names.push_back(entry.path().filename().string());
    }
    return names;
  }

  void expect_failure(const PackOptions& options, ErrorCode code, const std::string& message) const {
    try {
      pack(options);
      ADD_FAILURE() << "packed";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), code);
      EXPECT_THAT(error.what(), HasSubstr(message));
    }
  }

  testing::TemporaryDirectory directory_;
};

TEST_F(PackTest, KeepsEveryByteInTheOrderOfPaths) {
  std::string all_bytes;
  for (int byte = 255; byte >= 0; --byte) all_bytes += static_cast<char>(byte);
  write("b.txt", "second");
  write("a.txt", "first");
  write("sub/a.txt", all_bytes);
  PackOptions packing = options();
  packing.include_binary = true;
  pack(packing);
  EXPECT_THAT(paths(Split::train), ElementsAre("a.txt", "b.txt", "sub/a.txt"));
  EXPECT_EQ(text(Split::train, 0), "first");
  EXPECT_EQ(text(Split::train, 1), "second");
  EXPECT_EQ(text(Split::train, 2), all_bytes);
  const TokenDataset dataset = TokenDataset::open(output(), Split::train);
  EXPECT_EQ(dataset.num_bytes(), 5 + 6 + 256);
  EXPECT_EQ(dataset.num_tokens(), 6 + 7 + 257);
  EXPECT_THAT(leftovers(), ElementsAre("output"));
}

TEST_F(PackTest, LongFilesComeThroughWhole) {
  std::string long_text;
  for (int line = 0; line < 120000; ++line) long_text += std::to_string(line) + "\n";
  // Beyond where binary files are told, zeros are text like any other, wherever a piece of the reading begins.
  for (std::size_t i = 9000; i < long_text.size(); i += 1000) long_text[i] = '\0';
  write("a.txt", long_text);
  pack(options());
  EXPECT_EQ(text(Split::train, 0), long_text);
}

TEST_F(PackTest, EqualInputsGiveEqualBytes) {
  for (int i = 0; i < 200; ++i) write("f" + std::to_string(i) + ".txt", "text " + std::to_string(i));
  pack(options());
  PackOptions again = options();
  again.output = directory_.path() / "again";
  pack(again);
  for (const auto& entry : fs::directory_iterator(output())) {
    EXPECT_EQ(read_file(entry.path()), read_file(again.output / entry.path().filename())) << entry.path();
  }
  write("f7.txt", "text 7, changed");
  again.overwrite = true;
  const PackReport changed = pack(again);
  EXPECT_NE(changed.index.source_md5, read_index(output()).source_md5);
}

// The names were found by another implementation of MD5.
TEST_F(PackTest, TheNameAloneChoosesTheSplit) {
  for (int i = 0; i < 200; ++i) write("f" + std::to_string(i) + ".txt", "text " + std::to_string(i));
  write("12/bits/move.h", "in");
  write("13/bits/move.h", "out");
  pack(options());
  EXPECT_THAT(paths(Split::heldout),
              ElementsAre("12/bits/move.h", "f114.txt", "f118.txt", "f138.txt", "f142.txt", "f86.txt", "f88.txt"));
  EXPECT_EQ(paths(Split::train).size(), 202u - 7u);
  EXPECT_EQ(text(Split::heldout, 1), "text 114");
}

TEST_F(PackTest, IdenticalFilesStayOnceEvenAcrossSplits) {
  write("a.txt", "same");
  write("b.txt", "other");
  write("f86.txt", "same");  // alone it would be held out
  write("z/a.txt", "same");
  const PackReport report = pack(options());
  EXPECT_EQ(report.num_duplicates, 2);
  EXPECT_THAT(paths(Split::train), ElementsAre("a.txt", "b.txt"));
  EXPECT_THAT(paths(Split::heldout), IsEmpty());
  EXPECT_EQ(text(Split::train, 1), "other");
}

TEST_F(PackTest, ADuplicateLargerThanTheBuffersLeavesNoTrace) {
  const std::string large(1 << 20, 'x');
  write("a.txt", large);
  write("b.txt", large);
  write("d.txt", "last");
  pack(options());
  EXPECT_THAT(paths(Split::train), ElementsAre("a.txt", "d.txt"));
  EXPECT_EQ(text(Split::train, 1), "last");
}

TEST_F(PackTest, TailHoldsOutTheEndOfEveryFile) {
  write("a.txt", "0123456789012345678901234567890123456789");
  write("b.txt", "too short");
  PackOptions packing = options();
  packing.holdout = Holdout::tail;
  pack(packing);
  EXPECT_EQ(text(Split::train, 0), "01234567890123456789012345678901234567");
  EXPECT_EQ(text(Split::heldout, 0), "89");
  EXPECT_THAT(paths(Split::heldout), ElementsAre("a.txt"));
}

TEST_F(PackTest, LeavesOutAndCountsWhatIsNoText) {
  write("a.txt", "text");
  write("empty.txt", "");
  write("program", std::string("\x7f"
                               "ELF\0\0",
                               6));
  write("late_nul.txt", std::string(8000, 'x') + '\0');  // beyond the window
  write(".hidden", "hidden");
  write(".git/config", "hidden");
  fs::create_symlink("a.txt", input() / "link.txt");
  fs::create_directory_symlink(".", input() / "loop");
  ASSERT_EQ(::mkfifo((input() / "pipe").c_str(), 0600), 0);
  const PackReport report = pack(options());
  EXPECT_THAT(paths(Split::train), ElementsAre("a.txt", "late_nul.txt"));
  EXPECT_EQ(report.num_empty, 1);
  EXPECT_EQ(report.num_binary, 1);
  EXPECT_EQ(report.num_symbolic_links, 2);
  EXPECT_EQ(report.num_special_files, 1);
}

TEST_F(PackTest, AnInputThatIsALinkIsFollowed) {
  write("a.txt", "text");
  fs::create_directory_symlink("input", directory_.path() / "link");
  PackOptions packing = options();
  packing.inputs = {directory_.path() / "link"};
  pack(packing);
  EXPECT_THAT(paths(Split::train), ElementsAre("a.txt"));
}

TEST_F(PackTest, GlobsChooseFiles) {
  for (const char* path : {"a.md", "a.txt", "drafts/b.md", "notes/deep/c.md"}) write(path, path);
  PackOptions packing = options();
  packing.selection = {.include = {"*.md"}, .exclude = {"drafts/*"}};
  pack(packing);
  EXPECT_THAT(paths(Split::train), ElementsAre("a.md", "notes/deep/c.md"));
  packing.selection = {.include = {"notes/*"}, .exclude = {}};
  packing.overwrite = true;
  pack(packing);
  EXPECT_THAT(paths(Split::train), ElementsAre("notes/deep/c.md"));
}

TEST_F(PackTest, NamedFilesGoByTheirNames) {
  write("deep/a.txt", "a");
  write("b.txt", "b");
  PackOptions packing = options();
  packing.inputs = {input() / "deep" / "a.txt", input() / "b.txt"};
  pack(packing);
  EXPECT_THAT(paths(Split::train), ElementsAre("a.txt", "b.txt"));
}

TEST_F(PackTest, TheOutputIsNotItsOwnInput) {
  write("a.txt", "text");
  PackOptions packing = options();
  packing.output = input() / "data";
  packing.include_binary = true;
  pack(packing);
  packing.overwrite = true;
  const PackReport again = pack(packing);
  EXPECT_EQ(again.index[Split::train].num_documents, 1);
}

TEST_F(PackTest, ReportsItsProgress) {
  write("a.txt", std::string(600000, 'x'));
  write("b.txt", "text");
  std::vector<std::int64_t> bytes;
  PackProgress last;
  PackOptions packing = options();
  packing.on_progress = [&](const PackProgress& progress) {
    bytes.push_back(progress.num_bytes);
    last = progress;
  };
  pack(packing);
  EXPECT_TRUE(std::is_sorted(bytes.begin(), bytes.end()));
  EXPECT_GT(bytes.size(), 3u) << "a long file is reported while it is read";
  EXPECT_EQ(last.num_bytes, 600004);
  EXPECT_EQ(last.total_bytes, 600004);
  EXPECT_EQ(last.num_files, 2);
}

TEST_F(PackTest, AnInterruptionLeavesNothing) {
  write("a.txt", std::string(1000000, 'x'));
  StopFlag stop;
  PackOptions packing = options();
  packing.stop = &stop;
  packing.on_progress = [&](const PackProgress&) { stop.request(SIGINT); };
  expect_failure(packing, ErrorCode::interrupted, "interrupted");
  EXPECT_THAT(leftovers(), IsEmpty());
}

TEST_F(PackTest, AMissingInputLeavesNothing) {
  write("a.txt", "text");
  PackOptions packing = options();
  packing.inputs.push_back(input() / "missing.txt");
  expect_failure(packing, ErrorCode::io, "missing.txt': No such file or directory");
  EXPECT_THAT(leftovers(), IsEmpty());
}

TEST_F(PackTest, AFileThatCannotBeReadLeavesNothing) {
  write("a.txt", "text");
  write("b.txt", "more text");
  PackOptions packing = options();
  packing.on_progress = [&](const PackProgress&) { fs::remove(input() / "b.txt"); };
  expect_failure(packing, ErrorCode::io, "b.txt': No such file or directory");
  EXPECT_THAT(leftovers(), IsEmpty());
}

TEST_F(PackTest, NothingToPackIsAnError) {
  write("empty.txt", "");
  expect_failure(options(), ErrorCode::invalid_argument, "1 empty");
  EXPECT_THAT(leftovers(), IsEmpty());
}

TEST_F(PackTest, OnlyADataSetIsOverwrittenAndOnlyWhenAsked) {
  write("a.txt", "text");
  pack(options());
  expect_failure(options(), ErrorCode::invalid_argument, "must not exist");

  PackOptions packing = options();
  packing.overwrite = true;
  packing.output = directory_.path() / "precious";
  fs::create_directories(packing.output);
  std::ofstream(packing.output / "thesis.tex") << "years of work";
  expect_failure(packing, ErrorCode::invalid_argument, "only a data set is overwritten");
  EXPECT_EQ(read_file(packing.output / "thesis.tex"), "years of work");
}

TEST_F(PackTest, AFailedOverwriteKeepsTheEarlierDataSet) {
  write("a.txt", "text");
  pack(options());
  write("a.txt", "");
  PackOptions packing = options();
  packing.overwrite = true;
  expect_failure(packing, ErrorCode::invalid_argument, "must hold text");
  EXPECT_EQ(text(Split::train, 0), "text");
  EXPECT_THAT(leftovers(), ElementsAre("output"));
}

TEST_F(PackTest, OverwritingReplacesEveryFile) {
  write("a.txt", "text");
  pack(options());
  write("a.txt", "new text");
  std::ofstream(output() / "stray") << "";
  PackOptions packing = options();
  packing.overwrite = true;
  packing.output = output().string() + "/";
  pack(packing);
  EXPECT_EQ(text(Split::train, 0), "new text");
  EXPECT_FALSE(fs::exists(output() / "stray"));
  EXPECT_THAT(leftovers(), ElementsAre("output"));
}

TEST_F(PackTest, AnEmptyOutputDirectoryWillDo) {
  write("a.txt", "text");
  fs::create_directories(output());
  pack(options());
  EXPECT_EQ(text(Split::train, 0), "text");
}

// ---- records ----

TEST_F(PackTest, RecordsAreDocuments) {
  write("a.jsonl", "{\"text\": \"first \\u00e9\", \"id\": 1}\n\n  \r\n{\"id\": 2, \"text\": \"2nd\"}");
  write("b.txt", "plain");
  pack(options());
  EXPECT_THAT(paths(Split::train), ElementsAre("a.jsonl:1", "a.jsonl:4", "b.txt"));
  EXPECT_EQ(text(Split::train, 0), "first \xC3\xA9");
  EXPECT_EQ(text(Split::train, 1), "2nd");
}

TEST_F(PackTest, RecordsAreHeldOutByTheirLineAndPackedOnce) {
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

TEST_F(PackTest, RecordsThatAreNoneAreNamed) {
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

TEST_F(PackTest, AnotherFieldMayHoldTheText) {
  write("a.jsonl", "{\"content\": \"x\", \"text\": \"y\"}\n");
  PackOptions packing = options();
  packing.records.text = "content";
  pack(packing);
  EXPECT_EQ(text(Split::train, 0), "x");
}

TEST_F(PackTest, PromptsAreReadButNotLearned) {
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

TEST_F(PackTest, WithoutPromptsEveryTokenIsALabel) {
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

TEST_F(PackTest, TheNumberOfThreadsChangesNothing) {
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

TEST_F(PackTest, ADroppedDocumentTakesItsShardsWithIt) {
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
