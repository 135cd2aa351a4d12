// Calls in CUDA graphs: replayed on other values, and on other borders of the packed sequences.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <thread>

#include "comba/error.h"
#include "operators/cuda/device_forward.h"
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
  x.final_gradient = false;
  x.seed = seed;
  x.cu_seqlens = std::move(cu_seqlens);
  return x;
}

/// One graph, made for the first case, replayed on each of the others: always the bits of a call of its own.
void expect_replays(const std::vector<Description>& cases) {
  Case first(cases.front());
  for (const delta_rule::Implementation& implementation : implementations_for(first)) {
    SCOPED_TRACE(std::string(implementation.name) + "; " + describe(cases.front()));
    Case held = first;
    forward(implementation, held);  // a program's first call loads the kernels, for which a capture is not the place
    const Stream stream;
    DeviceForward call(implementation.name, held, stream);
    const Graph graph(stream, [&] { call.run(); });
    for (const Description& x : cases) {
      Case changed(x);
      const Outputs expected = forward(implementation, changed);
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
                                     {&held.cu_seqlens, &changed.cu_seqlens}}) {
        ASSERT_EQ(to->sizes(), from->sizes());
        ASSERT_EQ(to->dtype(), from->dtype());
        if (to->given()) std::memcpy(to->data(), from->data(), to->count() * size_of(to->dtype()));
      }
      call.send();
      call.poison();
      graph.launch(stream);
      const Outputs& out = call.fetch();
      EXPECT_TRUE(out.o.same_bits(expected.o)) << describe(x);
      EXPECT_TRUE(out.final_state.same_bits(expected.final_state)) << describe(x);
    }
  }
}

TEST(CudaReplay, GraphsSeeOtherValues) {
  for (const DType dtype : {DType::bf16, DType::f16, DType::f32}) {
    expect_replays({call(dtype, 1, {}), call(dtype, 3, {}), call(dtype, 5, {})});
  }
}

TEST(CudaReplay, GraphsSeeOtherBorders) {
  for (const DType dtype : {DType::bf16, DType::f32}) {
    for (const std::uint64_t seed : {1, 2}) {  // cu_seqlens of 4 and of 8 bytes
      expect_replays({call(dtype, seed, {0, 100, 200, 300}), call(dtype, seed + 2, {0, 1, 1, 300}),
                      call(dtype, seed + 4, {0, 64, 128, 300}), call(dtype, seed + 6, {0, 0, 0, 300}),
                      call(dtype, seed + 8, {0, 299, 300, 300}), call(dtype, seed, {0, 100, 200, 300})});
    }
  }
}

/// Each replay looks at the borders it finds.
TEST(CudaReplay, GraphsTellWrongBorders) {
  const Description x = call(DType::bf16, 1, {0, 100, 200, 300});
  Case held(x);
  for (const delta_rule::Implementation& implementation : implementations_for(held)) {
    SCOPED_TRACE(implementation.name);
    held = Case(x);
    const Outputs expected = forward(implementation, held);
    const Stream stream;
    DeviceForward call(implementation.name, held, stream);
    const Graph graph(stream, [&] {
      call.run();
      EXPECT_THROW(call.check_borders(), Error) << "while the stream is being captured";
    });
    for (const double end : {300, 299, 300}) {
      held.cu_seqlens.set(3, end);
      call.send();
      call.poison();
      graph.launch(stream);
      if (end == 300) {
        EXPECT_NO_THROW(call.check_borders());
        EXPECT_TRUE(call.fetch().o.same_bits(expected.o));
      } else {
        EXPECT_THROW(call.check_borders(), Error);
        EXPECT_TRUE(std::isnan(call.fetch().o.at(0)));
      }
    }
  }
}

/// Calls that share nothing run beside each other.
TEST(CudaReplay, CallsOnTwoStreamsKeepTheirBits) {
  Case one(call(DType::bf16, 1, {})), other(call(DType::bf16, 2, {0, 15, 150, 300}));
  for (const delta_rule::Implementation& implementation : implementations_for(one)) {
    SCOPED_TRACE(implementation.name);
    const Outputs expected_one = forward(implementation, one), expected_other = forward(implementation, other);
    const Stream first, second;
    DeviceForward x(implementation.name, one, first), y(implementation.name, other, second);
    for (int run = 0; run < 20; ++run) {
      x.poison();
      y.poison();
      for (int i = 0; i < 5; ++i) {
        x.run();
        y.run();
      }
      ASSERT_TRUE(x.fetch().o.same_bits(expected_one.o)) << run;
      ASSERT_TRUE(y.fetch().o.same_bits(expected_other.o)) << run;
    }
  }
}

/// A thread of autograd has asked CUDA for nothing before the operator does.
TEST(CudaReplay, AThreadMayBeginWithTheCall) {
  Case c(call(DType::bf16, 1, {}));
  for (const delta_rule::Implementation& implementation : implementations_for(c)) {
    SCOPED_TRACE(implementation.name);
    DeviceForward call(implementation.name, c);
    std::thread([&] { EXPECT_NO_THROW(call.run()); }).join();
    EXPECT_TRUE(call.fetch().o.same_bits(forward(implementation, c).o));
  }
}

TEST(CudaReplay, OutputsDoNotDependOnWhetherTheStateIsKept) {
  Case c(call(DType::bf16, 1, {0, 15, 150, 300}));
  for (const delta_rule::Implementation& implementation : implementations_for(c)) {
    SCOPED_TRACE(implementation.name);
    DeviceForward call(implementation.name, c, nullptr, false);
    call.run();
    EXPECT_TRUE(call.fetch().o.same_bits(forward(implementation, c).o));
  }
}

}  // namespace
}  // namespace comba::test
