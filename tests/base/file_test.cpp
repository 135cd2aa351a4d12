#include "base/file.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <cstring>

#include "comba/error.h"
#include "support/temporary_directory.h"

namespace comba {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class FileTest : public ::testing::Test {
 protected:
  fs::path path(const char* name) const { return directory_.path() / name; }

  std::vector<std::string> names() const {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(directory_.path())) names.push_back(entry.path().filename());
    return names;
  }

 private:
  testing::TemporaryDirectory directory_;
};

template <class Action>
void expect_io_error(Action&& action, const fs::path& named, const std::string& reason) {
  try {
    action();
    ADD_FAILURE() << "did not fail: " << reason;
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::io);
    EXPECT_THAT(error.what(), AllOf(HasSubstr("'" + named.string() + "'"), HasSubstr(reason)));
  }
}

std::string pattern(std::size_t size) {
  std::string text(size, '\0');
  for (std::size_t i = 0; i < size; ++i) text[i] = static_cast<char>(i * 131 + i / 251);
  return text;
}

TEST_F(FileTest, WhatIsWrittenIsRead) {
  for (const std::size_t size : {0u, 1u, 262143u, 262144u, 262145u, 1000000u}) {
    write_file_atomically(path("file"), pattern(size));
    EXPECT_EQ(read_file(path("file")), pattern(size)) << size;
    const MappedFile mapped(path("file"));
    ASSERT_EQ(mapped.bytes().size(), size);
    EXPECT_TRUE(size == 0 || std::memcmp(mapped.bytes().data(), pattern(size).data(), size) == 0) << size;
  }
  EXPECT_THAT(names(), ElementsAre("file")) << "temporary files were left";
}

TEST_F(FileTest, AFileThatIsNotCommittedNeverWas) {
  write_file_atomically(path("file"), "before");
  {
    AtomicFile file(path("file"));
    file.write("after", 5);
    EXPECT_EQ(read_file(path("file")), "before");
  }
  EXPECT_EQ(read_file(path("file")), "before");
  EXPECT_THAT(names(), ElementsAre("file"));
}

TEST_F(FileTest, TruncationReachesIntoTheBufferAndTheFile) {
  const std::string text = pattern(300000);
  for (const std::size_t kept : {0u, 5u, 262143u, 262144u, 299999u, 300000u}) {
    const fs::path file = path(std::to_string(kept).c_str());
    FileWriter writer(file);
    writer.write(text.data(), 262144);
    writer.write(text.data() + 262144, text.size() - 262144);
    writer.truncate(kept);
    EXPECT_EQ(writer.size(), kept);
    writer.write("end", 3);
    writer.finish();
    EXPECT_EQ(read_file(file), text.substr(0, kept) + "end") << kept;
  }
}

TEST_F(FileTest, ErrorsNameThePathAndTheReason) {
  const fs::path missing = path("missing");
  expect_io_error([&] { read_file(missing); }, missing, "No such file or directory");
  expect_io_error([&] { MappedFile mapped(missing); }, missing, "No such file or directory");
  expect_io_error([&] { read_file(path("")); }, path(""), "Is a directory");
  expect_io_error([&] { MappedFile mapped(path("")); }, path(""), "Is a directory");
  expect_io_error([&] { write_file_atomically(missing / "file", "x"); }, missing / "file", "No such file or directory");
  expect_io_error([&] { sync_directory(missing); }, missing, "No such file or directory");
  write_file_atomically(path("file"), "x");
  expect_io_error([&] { FileWriter writer(path("file")); }, path("file"), "File exists");
  fs::create_directory(path("directory"));
  expect_io_error([&] { write_file_atomically(path("directory"), "x"); }, path("directory"), "Is a directory");
  EXPECT_THAT(names(), ::testing::UnorderedElementsAre("file", "directory"));
}

TEST_F(FileTest, AFullDiskIsAnErrorAndKeepsTheEarlierFile) {
  write_file_atomically(path("file"), "before");
  struct rlimit before;
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  const struct rlimit small = {100000, before.rlim_max};
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);  // the limit then shows as a failed write, like a full disk
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  expect_io_error([&] { write_file_atomically(path("file"), pattern(300000)); }, path("file"), "File too large");
  ::setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, handler);
  EXPECT_EQ(read_file(path("file")), "before");
  EXPECT_THAT(names(), ElementsAre("file"));
}

TEST_F(FileTest, APipeIsWrittenToAndNotReplaced) {
  ASSERT_EQ(::mkfifo(path("pipe").c_str(), 0600), 0);
  const int keep_open = ::open(path("pipe").c_str(), O_RDWR);  // or opening it would wait for a reader
  write_file_atomically(path("pipe"), "text");
  EXPECT_TRUE(std::filesystem::is_fifo(path("pipe")));
  char read[5] = {};
  EXPECT_EQ(::fcntl(keep_open, F_SETFL, O_NONBLOCK), 0);
  EXPECT_EQ(::read(keep_open, read, sizeof read), 4);
  EXPECT_STREQ(read, "text");
  ::close(keep_open);
}

TEST_F(FileTest, AMappedPipeIsRefused) {
  ASSERT_EQ(::mkfifo(path("pipe").c_str(), 0600), 0);
  const int keep_open = ::open(path("pipe").c_str(), O_RDWR);  // or opening it would wait for a writer
  expect_io_error([&] { MappedFile mapped(path("pipe")); }, path("pipe"), "No such device");
  ::close(keep_open);
}

}  // namespace
}  // namespace comba
