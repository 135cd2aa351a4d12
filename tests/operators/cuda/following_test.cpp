// gradients of cuda.sm90 that begins before reverse has ended (ready.cuh): the same bits as one after the other, every
// time, in graphs, beside other calls; and an end whatever the borders say.
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "operators/cuda/device_backward.h"
#include "operators/cuda/device_forward.h"
#include "operators/cuda/graph.h"
#include "operators/cuda/wrong_borders.h"
#include "operators/delta_rule/cuda/sm90/sm90.h"

namespace comba::test {
namespace {

using delta_rule::cuda::sm90::Following;

/// Forces when gradients begins, for as long as it lives.
struct Forced {
  explicit Forced(Following when) { delta_rule::cuda::sm90::force_following(when); }
  ~Forced() { delta_rule::cuda::sm90::force_following(Following::chosen); }
  Forced(const Forced&) = delete;
  Forced& operator=(const Forced&) = delete;
};

Description call(std::int64_t B, std::int64_t T, std::int64_t H, std::int64_t HV,
                 std::vector<std::int64_t> cu_seqlens = {}) {
  Description x;
  x.dtype = DType::bf16;
  x.B = B;
  x.T = T;
  x.H = H;
  x.HV = HV;
  x.K = x.V = 128;
  x.cu_seqlens = std::move(cu_seqlens);
  return x;
}

Description sized(Description x, std::int64_t K, std::int64_t V) {
  x.K = K;
  x.V = V;
  return x;
}

/// Heads that leave multiprocessors, and more than have room at once; more value heads than key heads, several rows,
/// one packed sequence, other dims.
std::vector<Description> few_heads() {
  return {call(1, 900, 16, 16),
          call(3, 400, 4, 16),
          call(7, 150, 3, 3),
          call(1, 500, 2, 48),
          call(1, 777, 2, 2, {0, 777}),
          call(1, 65, 1, 1, {0, 65}),
          sized(call(2, 300, 2, 4), 256, 192),
          sized(call(2, 300, 3, 3), 64, 96)};
}

/// A forward call and the backward call that uses what it saves.
struct TrainingCall {
  TrainingCall(const char* implementation, Case& c, cudaStream_t stream = nullptr)
      : forward(implementation, c, stream), backward(implementation, c, stream), saved(forward.saved_bytes()) {
    forward.save_to(saved);
    backward.use(saved, forward.saved_bytes());
  }
  void poison() {
    forward.poison();
    backward.poison();
  }
  void run() {
    forward.run();
    backward.run();
  }

  DeviceForward forward;
  DeviceBackward backward;
  DeviceMemory saved;
};

/// What the kernels give one after the other.
struct Expected {
  Expected(const char* implementation, Case& c) : call(implementation, c) {
    const Forced apart(Following::never);
    call.poison();
    call.run();
    call.backward.fetch();
  }
  ::testing::AssertionResult is_given_by(TrainingCall& other) {
    return same_bits(other.backward.fetch(), call.backward.fetch());
  }

  TrainingCall call;
};

constexpr const char* kHopper = "cuda.sm90";

bool has_hopper(Case& c) {
  for (const char* name : device_implementations_for(c)) {
    if (std::string(name) == kHopper) return true;
  }
  return false;
}

/// Each time over poisoned memory.
template <class Run>
void run_often(int times, TrainingCall& call, Expected& expected, const Run& run) {
  for (int i = 0; i < times; ++i) {
    call.poison();
    run();
    ASSERT_TRUE(expected.is_given_by(call)) << "run " << i;
  }
}

/// A race would show as other bits on some run.
TEST(CudaFollowing, TwoHundredRunsGiveTheSameBits) {
  for (const Description& x : few_heads()) {
    Case c(x);
    if (!has_hopper(c)) GTEST_SKIP() << "needs a Hopper GPU";
    SCOPED_TRACE(describe(x));
    Expected expected(kHopper, c);
    const Forced following(Following::wherever_possible);
    TrainingCall call(kHopper, c);
    run_often(200, call, expected, [&] { call.run(); });
  }
}

/// As chosen by the shapes: 64 chunks and more of few heads.
TEST(CudaFollowing, LongSequencesGiveTheSameBits) {
  for (const Description& x : {call(1, 4100, 2, 4), call(2, 4096, 8, 8), call(1, 5000, 3, 3, {0, 5000})}) {
    Case c(x);
    if (!has_hopper(c)) GTEST_SKIP() << "needs a Hopper GPU";
    SCOPED_TRACE(describe(x));
    Expected expected(kHopper, c);
    TrainingCall call(kHopper, c);
    run_often(20, call, expected, [&] { call.run(); });
  }
}

TEST(CudaFollowing, GraphsGiveTheSameBits) {
  for (const Description& x : few_heads()) {
    Case c(x);
    if (!has_hopper(c)) GTEST_SKIP() << "needs a Hopper GPU";
    SCOPED_TRACE(describe(x));
    Expected expected(kHopper, c);
    const Forced following(Following::wherever_possible);
    const Stream stream;
    TrainingCall call(kHopper, c, stream);
    const Graph graph(stream, [&] {
      for (int i = 0; i < 3; ++i) call.run();
    });
    run_often(20, call, expected, [&] { graph.launch(stream); });
  }
}

/// More calls at once than have room beside each other.
TEST(CudaFollowing, CallsOnFourStreamsEnd) {
  std::vector<Case> cases;
  for (const Description& x : few_heads()) cases.emplace_back(x);
  if (!has_hopper(cases.front())) GTEST_SKIP() << "needs a Hopper GPU";
  std::vector<std::unique_ptr<Stream>> streams;
  std::vector<std::unique_ptr<Expected>> expected;
  std::vector<std::unique_ptr<TrainingCall>> calls;
  for (int i = 0; i < 4; ++i) {
    streams.push_back(std::make_unique<Stream>());
    expected.push_back(std::make_unique<Expected>(kHopper, cases[i]));
    calls.push_back(std::make_unique<TrainingCall>(kHopper, cases[i], *streams[i]));
  }
  const Forced following(Following::wherever_possible);
  for (int run = 0; run < 20; ++run) {
    for (auto& call : calls) call->poison();
    for (int i = 0; i < 5; ++i) {
      for (auto& call : calls) call->run();
    }
    for (int i = 0; i < 4; ++i) ASSERT_TRUE(expected[i]->is_given_by(*calls[i])) << "run " << run << ", stream " << i;
  }
}

/// One packed sequence that does not begin at 0, ends early, or turns round.
TEST(CudaFollowing, WrongBordersEndAndAreTold) {
  for (const auto& [begin, end] :
       {std::pair{70, 300}, {300, 0}, {70, 10}, {300, 290}, {300, 300}, {0, 0}, {-100, 300}, {0, 1000}}) {
    const Description x = call(1, 300, 2, 4, {0, 300});
    Case right(x), wrong(x);
    if (!has_hopper(right)) GTEST_SKIP() << "needs a Hopper GPU";
    wrong.cu_seqlens.set(0, begin);
    wrong.cu_seqlens.set(1, end);
    SCOPED_TRACE(std::to_string(begin) + " to " + std::to_string(end));
    Expected expected(kHopper, right);
    const Forced following(Following::wherever_possible);
    TrainingCall call(kHopper, wrong);
    call.run();
    EXPECT_NE(found_by(call.forward), "");
    EXPECT_NE(found_by(call.backward), "");
    EXPECT_TRUE(all_nan(call.forward.fetch().o));
    EXPECT_TRUE(all_nan(call.backward.fetch().dq));
    TrainingCall after(kHopper, right);
    after.run();
    EXPECT_TRUE(expected.is_given_by(after));
  }
}

}  // namespace
}  // namespace comba::test
