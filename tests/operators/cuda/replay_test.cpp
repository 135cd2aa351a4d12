// Calls in CUDA graphs: replayed on other values, and on other borders of the packed sequences.
#include <gtest/gtest.h>

#include <cmath>
#include <thread>

#include "comba/error.h"
#include "operators/cuda/device_forward.h"
#include "operators/cuda/graph.h"
#include "operators/cuda/replayed_case.h"

namespace comba::test {
namespace {

Description call(DType dtype, std::uint64_t seed, std::vector<std::int64_t> cu_seqlens) {
  Description x = replayed_call(dtype, seed, std::move(cu_seqlens));
  x.final_gradient = false;
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
      ASSERT_NO_FATAL_FAILURE(copy_values(held, changed));
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
