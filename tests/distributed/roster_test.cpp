#include "distributed/roster.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/csrc/distributed/c10d/Store.hpp>

#include <atomic>
#include <csignal>
#include <optional>
#include <string>
#include <thread>

#include "comba/error.h"
#include "support/threads_together.h"

namespace comba::distributed {
namespace {

using ::testing::HasSubstr;

/// The error of a process that waits for another in vain.
std::string error_of_waiting(const StopFlag& stop, ErrorCode code) {
  try {
    const Launch launch = {.rank = 0, .size = 2, .address = "127.0.0.1", .port = testing::free_port()};
    const Roster roster(launch, stop, std::chrono::milliseconds(200));
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code);
    return error.what();
  }
  return "";
}

TEST(Roster, SaysHowManyCame) {
  const StopFlag stop;
  EXPECT_THAT(error_of_waiting(stop, ErrorCode::io), HasSubstr("all 2 processes must come to 127.0.0.1:"));
  EXPECT_THAT(error_of_waiting(stop, ErrorCode::io), HasSubstr("got 1 of them"));
}

TEST(Roster, StopsWaitingForASignal) {
  StopFlag stop;
  stop.request(SIGINT);
  EXPECT_THAT(error_of_waiting(stop, ErrorCode::interrupted), HasSubstr("stopped while 1 of 2 processes had come"));
}

TEST(Roster, OneOfSeveralTellsAFailureThatAllHave) {
  std::atomic<int> told = 0;
  testing::run_launches(3, [&](const Launch& launch) {
    const StopFlag stop;
    Roster roster(launch, stop, std::chrono::seconds(30));
    told += roster.tells_failure() ? 1 : 0;
  });
  EXPECT_EQ(told, 1);
}

/// Process 1 of 3 has failed and tells it; the others, the last of which learns of it late, are silent.
void one_fails(std::chrono::milliseconds delay_of_last) {
  testing::run_launches(3, [&](const Launch& launch) {
    const StopFlag stop;
    Roster roster(launch, stop, std::chrono::seconds(30));
    if (launch.rank == 1) {
      EXPECT_TRUE(roster.tells_failure());
    } else {
      if (launch.rank == 2) std::this_thread::sleep_for(delay_of_last);
      EXPECT_EQ(roster.tells_loss("symptom"), std::nullopt) << "process " << launch.rank;
    }
  });
}

TEST(Roster, WhoHasTheErrorTellsItAndWhoLostHimIsSilent) { one_fails(std::chrono::milliseconds(0)); }

TEST(Roster, WhoLearnsOfAFailureLateIsSilentToo) { one_fails(std::chrono::milliseconds(300)); }

TEST(Roster, OneOfThoseThatAreLeftNamesTheOneThatIsNot) {
  std::atomic<int> told = 0;
  testing::run_launches(3, [&](const Launch& launch) {
    const StopFlag stop;
    Roster roster(launch, stop, std::chrono::seconds(30));
    if (launch.rank == 1) return;
    const auto text = roster.tells_loss("symptom");
    if (!text) return;
    ++told;
    EXPECT_THAT(*text, HasSubstr("lost process 1 of 3"));
  });
  EXPECT_EQ(told, 1);
}

TEST(Roster, TellsTheSymptomWhenAllAreThere) {
  std::atomic<int> told = 0;
  testing::run_launches(2, [&](const Launch& launch) {
    const StopFlag stop;
    Roster roster(launch, stop, std::chrono::seconds(30));
    const auto text = roster.tells_loss("symptom");
    told += text ? 1 : 0;
    EXPECT_EQ(text.value_or("symptom"), "symptom");
  });
  EXPECT_EQ(told, 1);
}

}  // namespace
}  // namespace comba::distributed
