#include "comba/parallel.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <fstream>
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

#if !defined(__SANITIZE_THREAD__)  // it allows no threads in a child

/// Exit status of a child process that runs `body`; a child that waits in vain is ended after 10 s.
template <class Body>
int status_in_child(const Body& body) {
  const pid_t child = fork();
  if (child == 0) {
    alarm(10);
    _exit(body() ? 0 : 1);
  }
  int status = -1;
  waitpid(child, &status, 0);
  return status;
}

/// A loop that ends only when two threads are inside at once.
bool two_threads_meet() {
  std::atomic<int> inside{0};
  parallel_for(2, [&](std::int64_t, std::int64_t) {
    ++inside;
    while (inside < 2) std::this_thread::yield();
  });
  return true;
}

TEST_F(Parallel, AChildProcessHasAPoolOfItsOwn) {
  set_num_threads(2);
  two_threads_meet();
  EXPECT_EQ(status_in_child(two_threads_meet), 0);
  two_threads_meet();
}

TEST_F(Parallel, AChildMadeWhileALoopRunsHasAPoolOfItsOwn) {
  set_num_threads(2);
  std::atomic<int> inside{0};
  std::thread busy([&] {
    parallel_for(2, [&](std::int64_t, std::int64_t) {
      ++inside;
      while (inside < 3) std::this_thread::yield();
    });
  });
  while (inside < 2) std::this_thread::yield();
  const int status = status_in_child(two_threads_meet);
  ++inside;
  busy.join();
  EXPECT_EQ(status, 0);
}

#if !defined(__SANITIZE_ADDRESS__)  // it needs address space without end
TEST_F(Parallel, RunsOnTheThreadsThatCouldBeStarted) {
  const auto run_with_little_memory = [] {
    std::ifstream statm("/proc/self/statm");
    rlim_t pages = 0;
    statm >> pages;
    const rlim_t bytes = pages * sysconf(_SC_PAGESIZE) + (rlim_t{256} << 20);  // stacks of fewer than 1000 threads
    const rlimit limit{bytes, bytes};
    setrlimit(RLIMIT_AS, &limit);
    set_num_threads(1000);
    std::vector<std::atomic<int>> runs(5000);
    parallel_for(5000, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) ++runs[i];
    });
    return std::all_of(runs.begin(), runs.end(), [](int count) { return count == 1; });
  };
  EXPECT_EQ(status_in_child(run_with_little_memory), 0);
}
#endif

#endif

TEST_F(Parallel, RefusesLessThanOneThread) {
  EXPECT_THROW(set_num_threads(0), Error);
  EXPECT_THROW(set_parallel_for({}, 0), Error);
}

}  // namespace
}  // namespace comba
