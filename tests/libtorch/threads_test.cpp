#include "libtorch/threads.h"

#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <latch>
#include <thread>
#include <vector>

#include "comba/parallel.h"

namespace comba {
namespace {

TEST(UseTorchThreads, LoopsRunOnSeveralOfThem) {
  if (at::get_num_threads() < 2) GTEST_SKIP() << "LibTorch has one thread here";
  use_torch_threads();
  EXPECT_EQ(num_threads(), at::get_num_threads());
  // Two iterations that wait for each other can only end when two threads run them.
  std::vector<std::thread::id> ids(2);
  std::latch both_run(2);
  parallel_for(2, [&](std::int64_t begin, std::int64_t end) {
    if (end - begin == 2) return;  // on one thread: the ids stay equal
    ids[begin] = std::this_thread::get_id();
    both_run.arrive_and_wait();
  });
  EXPECT_NE(ids[0], ids[1]);
}

TEST(UseTorchThreads, AnExceptionReachesTheCaller) {
  use_torch_threads();
  EXPECT_THROW(parallel_for(8, [](std::int64_t, std::int64_t) { throw std::runtime_error("from a thread"); }),
               std::runtime_error);
}

}  // namespace
}  // namespace comba
