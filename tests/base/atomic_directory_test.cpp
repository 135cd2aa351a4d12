#include "base/atomic_directory.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/file.h"
#include "comba/error.h"
#include "support/temporary_directory.h"

namespace comba {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

std::vector<std::string> names_in(const fs::path& directory) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(directory)) names.push_back(entry.path().filename());
  return names;
}

TEST(AtomicDirectory, AppearsWithItsContent) {
  const testing::TemporaryDirectory root;
  const fs::path path = root.path() / "new" / "parents" / "directory";
  AtomicDirectory directory(path);
  write_file_atomically(directory.staging() / "file", "content");
  EXPECT_FALSE(fs::exists(path));
  directory.commit();
  EXPECT_EQ(read_file(path / "file"), "content");
  EXPECT_THAT(names_in(path.parent_path()), ElementsAre("directory"));
}

TEST(AtomicDirectory, WithoutCommitNothingIsThere) {
  const testing::TemporaryDirectory root;
  {
    AtomicDirectory directory(root.path() / "directory");
    write_file_atomically(directory.staging() / "file", "content");
  }
  EXPECT_THAT(names_in(root.path()), IsEmpty());
}

TEST(AtomicDirectory, ReplacesAnEarlierOneAsAWhole) {
  const testing::TemporaryDirectory root;
  const fs::path path = root.path() / "directory";
  for (const char* file : {"first", "second"}) {
    AtomicDirectory directory(path.string() + "/");  // a slash at the end means the same directory
    write_file_atomically(directory.staging() / file, file);
    directory.commit();
  }
  EXPECT_THAT(names_in(path), ElementsAre("second"));
  EXPECT_THAT(names_in(root.path()), ElementsAre("directory"));
}

TEST(AtomicDirectory, AFileInTheWayIsAnErrorAndStays) {
  const testing::TemporaryDirectory root;
  write_file_atomically(root.path() / "file", "content");
  EXPECT_THROW(AtomicDirectory(root.path() / "file" / "directory"), Error);
  {
    AtomicDirectory directory(root.path() / "file");
    EXPECT_THROW(directory.commit(), Error);
  }
  EXPECT_EQ(read_file(root.path() / "file"), "content");
  EXPECT_THAT(names_in(root.path()), ElementsAre("file"));
}

}  // namespace
}  // namespace comba
