// The forward pass of cuda.sm90 in one kernel (fused.cuh) gives the bits that it gives in two, whatever the call, every
// time, in graphs and beside other calls. So what the other tests say of the one holds of the other.
#include <gtest/gtest.h>

#include <memory>
#include <utility>
#include <vector>

#include "operators/cuda/accuracy_cases.h"
#include "operators/cuda/device_forward.h"
#include "operators/cuda/fusing.h"
#include "operators/cuda/graph.h"

namespace comba::test {
namespace {

constexpr const char* kHopper = "cuda.sm90";
constexpr DType kHalfDtypes[] = {DType::bf16, DType::f16};

Description call(std::int64_t B, std::int64_t T, std::int64_t H, std::int64_t K, std::int64_t V,
                 DType dtype = DType::bf16) {
  Description x = model_call(B, T, H, K, V, dtype);
  x.final_gradient = false;
  return x;
}

Description packed(std::vector<std::int64_t> cu_seqlens, DType dtype, std::uint64_t seed) {
  Description x = call(1, cu_seqlens.back(), 2, 128, 128, dtype);
  x.cu_seqlens = std::move(cu_seqlens);
  x.seed = seed;  // cu_seqlens of 4 and of 8 bytes
  return x;
}

class CudaFused : public ::testing::Test {
 protected:
  void SetUp() override {
    Case c(call(1, 64, 1, 128, 128));
    for (const char* name : device_implementations_for(c)) {
      if (std::string(name) == kHopper) return;
    }
    GTEST_SKIP() << "needs a Hopper GPU";
  }

  static Outputs run(Case& c, bool fused) {
    const Fusing forced(fused);
    DeviceForward call(kHopper, c);
    call.poison();
    call.run();
    return call.fetch();
  }

  static void expect_same_bits(Case& c) {
    SCOPED_TRACE(describe(c.description));
    const Outputs expected = run(c, false), out = run(c, true);
    ASSERT_TRUE(out.o.same_bits(expected.o));
    ASSERT_TRUE(out.final_state.same_bits(expected.final_state));
  }

  static void expect_same_bits(const Description& x) {
    Case c(x);
    expect_same_bits(c);
  }
};

/// Kernels that a forward call queues.
std::size_t kernels_of(const Description& x, bool fused) {
  Case c(x);
  const Fusing forced(fused);
  const Stream stream;
  DeviceForward call(kHopper, c, stream);
  check_cuda(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal), "cudaStreamBeginCapture");
  call.run();
  cudaGraph_t graph = nullptr;
  check_cuda(cudaStreamEndCapture(stream, &graph), "cudaStreamEndCapture");
  std::size_t nodes = 0;
  const cudaError_t status = cudaGraphGetNodes(graph, nullptr, &nodes);
  cudaGraphDestroy(graph);
  check_cuda(status, "cudaGraphGetNodes");
  return nodes;
}

/// Otherwise the tests below would say nothing about it.
TEST_F(CudaFused, IsOneKernel) {
  for (const auto& [K, V] : {std::pair{128, 128}, {64, 64}, {40, 8}, {96, 72}}) {
    EXPECT_EQ(kernels_of(call(2, 200, 2, K, V), true), 1u) << K << ", " << V;
    EXPECT_EQ(kernels_of(call(2, 200, 2, K, V), false), 2u) << K << ", " << V;
  }
  EXPECT_EQ(kernels_of(call(2, 200, 2, 256, 128), true), 2u);
  EXPECT_EQ(kernels_of(call(2, 200, 2, 128, 192), true), 2u);
}

/// Rings go round, the last chunk is not full: short enough for compute-sanitizer.
TEST_F(CudaFused, FiveChunks) {
  for (const DType dtype : kHalfDtypes) {
    for (const std::int64_t D : {64, 128}) expect_same_bits(call(1, 300, 2, D, D, dtype));
  }
}

TEST_F(CudaFused, EveryLength) {
  for (std::int64_t T = 1; T <= 66; ++T) expect_same_bits(call(1, T, 2, 128, 128));
  for (const DType dtype : kHalfDtypes) {
    for (const std::int64_t T : {1, 15, 63, 64, 65, 127, 128, 129, 191, 192, 193, 255, 256, 257, 321, 385, 449, 1000}) {
      for (const std::int64_t D : {64, 128}) expect_same_bits(call(2, T, 3, D, D, dtype));
    }
  }
}

TEST_F(CudaFused, HeadDims) {
  for (const DType dtype : kHalfDtypes) {
    for (const std::int64_t K : {8, 40, 64, 72, 96, 128}) {
      for (const std::int64_t V : {8, 32, 40, 64, 72, 96, 128}) {
        for (const Rule rule : kRules) {
          Description x = call(1, 200, 2, K, V, dtype);
          x.rule = rule;
          expect_same_bits(x);
        }
      }
    }
  }
}

TEST_F(CudaFused, EveryRuleConventionGateAndState) {
  for_each_combination(/*T=*/150, /*seed=*/9000, [&](Description x, int bits) {
    if (x.feedback == Feedback::per_key_head || x.feedback == Feedback::per_value_head) return;  // a full p
    x.dtype = bits % 3 == 0 ? DType::f16 : DType::bf16;
    x.final_gradient = false;
    for (const std::int64_t D : {64, 128}) {
      x.K = x.V = D;
      expect_same_bits(x);
    }
  });
}

TEST_F(CudaFused, ValueHeadsThatShareAKeyHead) {
  for (const std::int64_t group : {1, 2, 8, 32}) {
    Description x = call(2, 300, 1, 128, 64);
    x.HV = group;
    expect_same_bits(x);
    x.V = 128;
    expect_same_bits(x);
  }
}

TEST_F(CudaFused, PackedSequences) {
  for (const std::vector<std::int64_t>& borders : {std::vector<std::int64_t>{0, 15},
                                                   {0, 256, 500, 1000},
                                                   {0, 15, 100, 300, 1200, 2000},
                                                   {0, 0, 15, 15, 15},
                                                   {0, 0, 0, 15, 100, 100, 300, 1200, 1200, 2000},
                                                   {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 74, 138, 203, 267}}) {
    for (const DType dtype : kHalfDtypes) {
      for (const std::uint64_t seed : {1, 2}) expect_same_bits(packed(borders, dtype, seed));
    }
  }
}

TEST_F(CudaFused, GatesAndKeysAtTheirLimits) {
  for (const DType dtype : kHalfDtypes) {
    for (const Rule rule : kRules) {
      Description x = call(1, 400, 2, 128, 128, dtype);
      x.rule = rule;
      for (Case& c : cases_at_the_limits_of_gates(x)) expect_same_bits(c);
      for (const double log_decay : {0.0001, 1.0, 20.0}) {
        x.log_decay = log_decay;
        expect_same_bits(x);
      }
      for (const double size : {1e-6, 1e4}) {
        x.key_size = size;
        expect_same_bits(x);
      }
      x.identical_keys = true;
      expect_same_bits(x);
    }
  }
}

/// More blocks than a GPU has multiprocessors, and long sequences.
TEST_F(CudaFused, ManyHeads) {
  expect_same_bits(call(10, 200, 16, 128, 128));
  expect_same_bits(call(8, 2048, 16, 128, 128));
  expect_same_bits(call(4, 1024, 40, 64, 64));
  expect_same_bits(call(1, 16400, 2, 128, 128));
}

/// A race would show as other bits on some run.
TEST_F(CudaFused, TwoHundredRunsGiveTheSameBits) {
  for (const Description& x :
       {call(9, 900, 16, 128, 128), call(2, 1000, 3, 128, 64), call(3, 700, 50, 64, 128, DType::f16),
        packed({0, 15, 15, 79, 143, 144, 300, 900}, DType::bf16, 1)}) {
    SCOPED_TRACE(describe(x));
    Case c(x);
    const Outputs expected = run(c, false);
    const Fusing fused(true);
    DeviceForward call(kHopper, c);
    for (int run = 0; run < 200; ++run) {
      call.poison();
      call.run();
      const Outputs& out = call.fetch();
      ASSERT_TRUE(out.o.same_bits(expected.o)) << "run " << run;
      ASSERT_TRUE(out.final_state.same_bits(expected.final_state)) << "run " << run;
    }
  }
}

TEST_F(CudaFused, GraphsOnFourStreamsGiveTheSameBits) {
  std::vector<Case> cases;
  for (const std::int64_t T : {700, 65, 300, 1000}) cases.emplace_back(call(4, T, 16, 128, 128));
  std::vector<std::unique_ptr<Stream>> streams;
  std::vector<Outputs> expected;
  std::vector<std::unique_ptr<DeviceForward>> calls;
  std::vector<std::unique_ptr<Graph>> graphs;
  for (Case& c : cases) expected.push_back(run(c, false));
  const Fusing fused(true);
  for (Case& c : cases) {
    const Stream& stream = *streams.emplace_back(std::make_unique<Stream>());
    DeviceForward& call = *calls.emplace_back(std::make_unique<DeviceForward>(kHopper, c, stream));
    graphs.push_back(std::make_unique<Graph>(stream, [&] {
      for (int i = 0; i < 5; ++i) call.run();
    }));
  }
  for (int run = 0; run < 20; ++run) {
    for (auto& call : calls) call->poison();
    for (std::size_t i = 0; i < graphs.size(); ++i) graphs[i]->launch(*streams[i]);
    for (std::size_t i = 0; i < graphs.size(); ++i) {
      const Outputs& out = calls[i]->fetch();
      ASSERT_TRUE(out.o.same_bits(expected[i].o)) << "run " << run << ", stream " << i;
      ASSERT_TRUE(out.final_state.same_bits(expected[i].final_state)) << "run " << run << ", stream " << i;
    }
  }
}

}  // namespace
}  // namespace comba::test
