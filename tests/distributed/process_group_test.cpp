#include "distributed/process_group.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/csrc/distributed/c10d/Store.hpp>

#include <chrono>
#include <string>
#include <thread>

#include "support/threads_together.h"

namespace comba::distributed {
namespace {

at::Tensor values(int rank, std::int64_t size) { return at::arange(size, at::kFloat) + 100 * rank; }

class GlooGroup : public ::testing::TestWithParam<int> {
 protected:
  void SetUp() override {
    if (!has_gloo()) GTEST_SKIP() << "this build has no Gloo";
  }
  const int size_ = GetParam();
};

INSTANTIATE_TEST_SUITE_P(Sizes, GlooGroup, ::testing::Values(2, 3, 4));

TEST_P(GlooGroup, SumsAndTakesTheLargest) {
  testing::run_group(size_, [&](ProcessGroup& group) {
    at::Tensor sum = values(group.rank(), 7), largest = at::full({1}, group.rank(), at::kLong);
    group.all_reduce_sum(sum);
    group.all_reduce_max(largest);
    EXPECT_TRUE(at::equal(sum, at::arange(7, at::kFloat) * size_ + 100 * size_ * (size_ - 1) / 2));
    EXPECT_EQ(largest.item<int>(), size_ - 1);
  });
}

TEST_P(GlooGroup, ScattersGathersAndBroadcasts) {
  testing::run_group(size_, [&](ProcessGroup& group) {
    constexpr std::int64_t n = 5;
    at::Tensor whole = values(group.rank(), size_ * n), part = at::empty({n});
    group.reduce_scatter_sum(part, whole);
    const at::Tensor expected = at::arange(size_ * n, at::kFloat) * size_ + 100 * size_ * (size_ - 1) / 2;
    EXPECT_TRUE(at::equal(part, expected.narrow(0, group.rank() * n, n)));

    at::Tensor gathered = at::zeros({size_ * n}), led = at::zeros({size_ * n});
    group.all_gather(gathered, part);
    EXPECT_TRUE(at::equal(gathered, expected));
    group.gather(led, part);
    EXPECT_TRUE(at::equal(led, group.leads() ? expected : at::zeros({size_ * n})));

    at::Tensor copy = values(group.rank(), n);
    group.broadcast(copy);
    EXPECT_TRUE(at::equal(copy, values(0, n)));
  });
}

TEST(Gloo, AProcessThatDoesNotAnswerIsLostAfterTheTimeout) {
  if (!has_gloo()) GTEST_SKIP() << "this build has no Gloo";
  std::string message;
  testing::run_launches(2, [&](const Launch& launch) {
    const StopFlag stop;
    Roster roster(launch, stop, std::chrono::seconds(30));
    const auto group = make_gloo_group(roster, std::chrono::milliseconds(300));
    if (launch.rank == 1) {  // stays connected and says nothing until the other has given up
      roster.store()->wait({"gave up"}, std::chrono::seconds(30));
      return;
    }
    at::Tensor tensor = at::ones({3});
    try {
      group->all_reduce_sum(tensor);
      ADD_FAILURE() << "no error";
    } catch (const LostProcess& error) {
      message = error.what();
    }
    roster.store()->set("gave up", std::string("yes"));
  });
  EXPECT_THAT(message, ::testing::StartsWith("[distributed] all-reduce failed: "));
  EXPECT_THAT(message, ::testing::Not(::testing::HasSubstr("\n")));
}

TEST(Gloo, WaitsAtABarrierHoweverLongItTakes) {
  if (!has_gloo()) GTEST_SKIP() << "this build has no Gloo";
  constexpr std::chrono::milliseconds kTimeout{100};
  testing::run_launches(2, [&](const Launch& launch) {
    const StopFlag stop;
    const Roster roster(launch, stop, std::chrono::seconds(30));
    const auto group = make_gloo_group(roster, kTimeout);
    if (group->leads()) std::this_thread::sleep_for(10 * kTimeout);
    EXPECT_NO_THROW(group->barrier());
    if (!group->leads()) roster.store()->set("through", std::string("yes"));
    if (group->leads()) roster.store()->wait({"through"}, std::chrono::seconds(30));
  });
}

TEST(SingleProcess, LeavesThingsAsTheyAre) {
  ProcessGroup& group = single_process();
  at::Tensor whole = values(0, 4), part = at::empty({4});
  group.all_reduce_sum(whole);
  group.reduce_scatter_sum(part, whole);
  EXPECT_TRUE(group.leads());
  EXPECT_TRUE(at::equal(part, values(0, 4)));
}

}  // namespace
}  // namespace comba::distributed
