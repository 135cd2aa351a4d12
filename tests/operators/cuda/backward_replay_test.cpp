// Backward calls in CUDA graphs: replayed on other values, and on other borders of the packed sequences.
#include <gtest/gtest.h>

#include "operators/cuda/device_backward.h"
#include "operators/cuda/graph.h"
#include "operators/cuda/replayed_case.h"

namespace comba::test {
namespace {

/// One graph, made for the first case, replayed on each of the others: always the bits of a call of its own.
void expect_replays(const std::vector<Description>& cases) {
  Case first(cases.front());
  for (const delta_rule::Implementation& implementation : backward_implementations_for(first)) {
    SCOPED_TRACE(std::string(implementation.name) + "; " + describe(cases.front()));
    Case held = first;
    backward(implementation, held);  // a program's first call loads the kernels, for which a capture is not the place
    const Stream stream;
    DeviceBackward call(implementation.name, held, stream);
    const Graph graph(stream, [&] { call.run(); });
    for (const Description& x : cases) {
      Case changed(x);
      const Gradients expected = backward(implementation, changed);
      ASSERT_NO_FATAL_FAILURE(copy_values(held, changed));
      call.send();
      call.poison();
      graph.launch(stream);
      EXPECT_TRUE(same_bits(call.fetch(), expected)) << describe(x);
    }
  }
}

TEST(CudaBackwardReplay, GraphsSeeOtherValues) {
  for (const DType dtype : {DType::bf16, DType::f16, DType::f32}) {
    expect_replays({replayed_call(dtype, 1, {}), replayed_call(dtype, 3, {}), replayed_call(dtype, 5, {})});
  }
}

TEST(CudaBackwardReplay, GraphsSeeOtherBorders) {
  for (const DType dtype : {DType::bf16, DType::f32}) {
    for (const std::uint64_t seed : {1, 2}) {  // cu_seqlens of 4 and of 8 bytes
      expect_replays({replayed_call(dtype, seed, {0, 100, 200, 300}), replayed_call(dtype, seed + 2, {0, 1, 1, 300}),
                      replayed_call(dtype, seed + 4, {0, 64, 128, 300}), replayed_call(dtype, seed + 6, {0, 0, 0, 300}),
                      replayed_call(dtype, seed + 8, {0, 299, 300, 300}),
                      replayed_call(dtype, seed, {0, 100, 200, 300})});
    }
  }
}

/// Calls that share nothing run beside each other.
TEST(CudaBackwardReplay, CallsOnTwoStreamsKeepTheirBits) {
  Case one(replayed_call(DType::bf16, 1, {})), other(replayed_call(DType::bf16, 2, {0, 15, 150, 300}));
  for (const delta_rule::Implementation& implementation : backward_implementations_for(one)) {
    SCOPED_TRACE(implementation.name);
    const Gradients expected_one = backward(implementation, one), expected_other = backward(implementation, other);
    const Stream first, second;
    DeviceBackward x(implementation.name, one, first), y(implementation.name, other, second);
    for (int run = 0; run < 10; ++run) {
      x.poison();
      y.poison();
      for (int i = 0; i < 3; ++i) {
        x.run();
        y.run();
      }
      ASSERT_TRUE(same_bits(x.fetch(), expected_one)) << run;
      ASSERT_TRUE(same_bits(y.fetch(), expected_other)) << run;
    }
  }
}

}  // namespace
}  // namespace comba::test
