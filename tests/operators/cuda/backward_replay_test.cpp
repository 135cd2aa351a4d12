// Backward calls in CUDA graphs: replayed on other values, and on other borders of the packed sequences.
#include <gtest/gtest.h>

#include <cstring>

#include "operators/cuda/device_backward.h"
#include "operators/cuda/graph.h"

namespace comba::test {
namespace {

Description call(DType dtype, std::uint64_t seed, std::vector<std::int64_t> cu_seqlens) {
  Description x;
  x.dtype = dtype;
  x.T = 300;
  x.H = 2;
  x.HV = 4;
  x.K = x.V = 128;
  x.seed = seed;
  x.cu_seqlens = std::move(cu_seqlens);
  return x;
}

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
      for (const auto& [to, from] : {std::pair{&held.q, &changed.q},
                                     {&held.k, &changed.k},
                                     {&held.v, &changed.v},
                                     {&held.b, &changed.b},
                                     {&held.d, &changed.d},
                                     {&held.beta_logit, &changed.beta_logit},
                                     {&held.a, &changed.a},
                                     {&held.A_log, &changed.A_log},
                                     {&held.dt_bias, &changed.dt_bias},
                                     {&held.initial_state, &changed.initial_state},
                                     {&held.cu_seqlens, &changed.cu_seqlens},
                                     {&held.d_o, &changed.d_o},
                                     {&held.d_final_state, &changed.d_final_state}}) {
        ASSERT_EQ(to->sizes(), from->sizes());
        ASSERT_EQ(to->dtype(), from->dtype());
        if (to->given()) std::memcpy(to->data(), from->data(), to->count() * size_of(to->dtype()));
      }
      call.send();
      call.poison();
      graph.launch(stream);
      EXPECT_TRUE(same_bits(call.fetch(), expected)) << describe(x);
    }
  }
}

TEST(CudaBackwardReplay, GraphsSeeOtherValues) {
  for (const DType dtype : {DType::bf16, DType::f16, DType::f32}) {
    expect_replays({call(dtype, 1, {}), call(dtype, 3, {}), call(dtype, 5, {})});
  }
}

TEST(CudaBackwardReplay, GraphsSeeOtherBorders) {
  for (const DType dtype : {DType::bf16, DType::f32}) {
    for (const std::uint64_t seed : {1, 2}) {  // cu_seqlens of 4 and of 8 bytes
      expect_replays({call(dtype, seed, {0, 100, 200, 300}), call(dtype, seed + 2, {0, 1, 1, 300}),
                      call(dtype, seed + 4, {0, 64, 128, 300}), call(dtype, seed + 6, {0, 0, 0, 300}),
                      call(dtype, seed + 8, {0, 299, 300, 300}), call(dtype, seed, {0, 100, 200, 300})});
    }
  }
}

/// Calls that share nothing run beside each other.
TEST(CudaBackwardReplay, CallsOnTwoStreamsKeepTheirBits) {
  Case one(call(DType::bf16, 1, {})), other(call(DType::bf16, 2, {0, 15, 150, 300}));
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
