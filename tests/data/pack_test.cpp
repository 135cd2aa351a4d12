#include "data/pack.h"

#include <sys/stat.h>

#include <csignal>

#include "base/file.h"
#include "pack_fixture.h"

namespace comba::data {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

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

}  // namespace
}  // namespace comba::data
