#include "comba/parallel.h"

#include <gtest/gtest.h>

#include <atomic>
#include <set>
#include <stdexcept>
#include <thread>
#include <vector>

#include "comba/error.h"

namespace comba {
namespace {

class Parallel : public testing::Test {
 protected:
  ~Parallel() override {
    set_parallel_for({}, 1);
    set_num_threads(default_threads_);
  }

 private:
  int default_threads_ = num_threads();
};

TEST_F(Parallel, RunsEachIterationOnce) {
  for (const int threads : {1, 2, 5}) {
    set_num_threads(threads);
    for (const std::int64_t count : {0, 1, 2, 7, 1000}) {
      std::vector<std::atomic<int>> runs(count);
      parallel_for(count, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i) ++runs[i];
      });
      for (const std::atomic<int>& run : runs) ASSERT_EQ(run, 1);
    }
  }
}

TEST_F(Parallel, UsesEveryThread) {
  set_num_threads(3);
  std::atomic<int> inside{0};
  parallel_for(3, [&](std::int64_t, std::int64_t) {
    ++inside;
    while (inside < 3) std::this_thread::yield();  // ends only when three threads are inside at once
  });
  EXPECT_EQ(inside, 3);
}

TEST_F(Parallel, RethrowsTheFirstExceptionAndGoesOn) {
  set_num_threads(2);
  const auto fail = [](std::int64_t, std::int64_t) { throw std::runtime_error("body"); };
  EXPECT_THROW(parallel_for(4, fail), std::runtime_error);
  std::atomic<int> sum{0};
  parallel_for(4, [&](std::int64_t begin, std::int64_t end) { sum += static_cast<int>(end - begin); });
  EXPECT_EQ(sum, 4);
}

TEST_F(Parallel, LoopsInsideLoopsRunOnTheirThread) {
  set_num_threads(2);
  std::atomic<int> sum{0};
  parallel_for(2, [&](std::int64_t, std::int64_t) {
    const std::thread::id outer = std::this_thread::get_id();
    parallel_for(10, [&](std::int64_t begin, std::int64_t end) {
      EXPECT_EQ(std::this_thread::get_id(), outer);
      sum += static_cast<int>(end - begin);
    });
  });
  EXPECT_EQ(sum, 20);
}

TEST_F(Parallel, CallersOnSeveralThreadsDoNotDisturbEachOther) {
  set_num_threads(2);
  std::atomic<std::int64_t> sum{0};
  std::vector<std::thread> callers;
  for (int caller = 0; caller < 4; ++caller) {
    callers.emplace_back([&] {
      for (int loop = 0; loop < 100; ++loop) {
        parallel_for(10, [&](std::int64_t begin, std::int64_t end) { sum += end - begin; });
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  EXPECT_EQ(sum, 4 * 100 * 10);
}

TEST_F(Parallel, HookReplacesThePool) {
  int calls = 0;
  set_parallel_for(
      [&](std::int64_t count, const RangeBody& body) {
        ++calls;
        body(0, count);
      },
      7);
  EXPECT_EQ(num_threads(), 7);
  std::int64_t sum = 0;
  parallel_for(5, [&](std::int64_t begin, std::int64_t end) { sum += end - begin; });
  EXPECT_EQ(calls, 1);
  EXPECT_EQ(sum, 5);
}

TEST_F(Parallel, RefusesLessThanOneThread) {
  EXPECT_THROW(set_num_threads(0), Error);
  EXPECT_THROW(set_parallel_for({}, 0), Error);
}

}  // namespace
}  // namespace comba
