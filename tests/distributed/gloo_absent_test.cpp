#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "comba/error.h"
#include "support/threads_together.h"

namespace comba::distributed {
namespace {

TEST(GlooAbsent, SaysWhatIsMissing) {
  EXPECT_FALSE(has_gloo());
  testing::run_launches(2, [](const Launch& launch) {
    const StopFlag stop;
    Roster roster(launch, stop, std::chrono::seconds(30));
    try {
      make_gloo_group(roster);
      ADD_FAILURE() << "no error";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::unsupported);
      EXPECT_THAT(error.what(), ::testing::HasSubstr("this build has no Gloo and trains in one process; got 2"));
      roster.tells_failure();
    }
  });
}

}  // namespace
}  // namespace comba::distributed
