#include "tasks/results_file.h"

#include <gmock/gmock.h>

#include "base/file.h"
#include "base/message.h"
#include "support/temporary_directory.h"

namespace comba::tasks {
namespace {

using ::testing::HasSubstr;
using ::testing::ThrowsMessage;
using Json = ResultsFile::Json;

class ResultsFileTest : public ::testing::Test {
 protected:
  comba::testing::TemporaryDirectory directory_;
  std::filesystem::path path_ = directory_.path() / "out" / "results.json";
  const Json settings_ = {{"steps", 3}};
};

TEST_F(ResultsFileTest, TwoProcessesAddToOneFile) {
  ResultsFile first(path_, settings_, false), second(path_, settings_, true);
  first.add({{"name", "a"}, {"seed", 1}});
  second.add({{"name", "a"}, {"seed", 2}});
  EXPECT_EQ(second.cells().size(), 2u);
  EXPECT_TRUE(second.has({{"name", "a"}, {"seed", 1}}));
  EXPECT_FALSE(second.has({{"name", "b"}, {"seed", 1}}));
  const Json json = Json::parse(read_file(path_));
  EXPECT_EQ(json["steps"], 3);
  EXPECT_EQ(json["cells"].size(), 2u);
}

TEST_F(ResultsFileTest, GoesOnWithItsOwnSettingsAlone) {
  EXPECT_THAT([&] { ResultsFile(path_, settings_, true); }, ThrowsMessage<Error>(HasSubstr("nothing to resume")));
  ResultsFile(path_, settings_, false);
  EXPECT_THAT([&] { ResultsFile(path_, settings_, false); }, ThrowsMessage<Error>(HasSubstr("holds results")));
  EXPECT_THAT([&] { ResultsFile(path_, {{"steps", 4}}, true); }, ThrowsMessage<Error>(HasSubstr("another steps: 4")));
}

}  // namespace
}  // namespace comba::tasks
