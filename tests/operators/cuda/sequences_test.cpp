// Borders in cu_seqlens cannot be looked at before a call on the GPU is queued. Whatever they say, nothing outside the
// tensors is read or written, and calls after it are right. Wrong ones make every result NaN, and check_borders() says
// which one is wrong.
#include <gtest/gtest.h>

#include "operators/cuda/device_forward.h"
#include "operators/cuda/fusing.h"
#include "operators/cuda/wrong_borders.h"

namespace comba::test {
namespace {

/// A call with wrong borders, with zeros where NaN is to come.
void expect_told(DeviceForward& call, const std::string& message) {
  call.clear();
  call.run();
  EXPECT_NE(found_by(call).find("[delta_rule_forward] cu_seqlens " + message), std::string::npos) << found_by(call);
  const Outputs& out = call.fetch();
  EXPECT_TRUE(all_nan(out.o));
  EXPECT_TRUE(all_nan(out.final_state));
  EXPECT_TRUE(call.inputs_intact());
}

class CudaWrongBorders : public ::testing::TestWithParam<WrongBorders> {};

TEST_P(CudaWrongBorders, TouchNothingElseAndAreTold) {
  for (const DType dtype : {DType::bf16, DType::f32}) {
    for (const std::uint64_t seed : {1, 2}) {  // cu_seqlens of 4 and of 8 bytes
      Description x;
      x.dtype = dtype;
      x.T = WrongBorders::kTokens;
      x.H = 2;
      x.HV = 4;
      x.K = x.V = 128;
      x.final_gradient = false;
      x.seed = seed;
      x.cu_seqlens = {0, 100, 200, WrongBorders::kTokens};
      Case right(x), wrong(x);
      GetParam().put_into(wrong.cu_seqlens);
      for (const delta_rule::Implementation& implementation : implementations_for(right)) {
        SCOPED_TRACE(std::string(implementation.name) + "; " + describe(x));
        const Outputs expected = forward(implementation, right);
        for (const bool fused : {false, true}) {
          const Fusing forced(fused);
          {
            DeviceForward call(implementation.name, wrong);  // looks at its guard zones at the end
            expect_told(call, GetParam().message);
          }
          DeviceForward call(implementation.name, right);
          call.run();
          EXPECT_EQ(found_by(call), "") << "a right call after it";
          EXPECT_TRUE(call.fetch().o.same_bits(expected.o));
        }
      }
    }
  }
}

/// Then no kernel of the implementation has anything to do.
TEST(CudaNoSequences, TokensOfNobodyAreTold) {
  Description x;
  x.T = WrongBorders::kTokens;
  x.final_gradient = x.initial_state = false;
  x.cu_seqlens = {0, WrongBorders::kTokens};
  Case right(x);
  for (const delta_rule::Implementation& implementation : implementations_for(right)) {
    SCOPED_TRACE(implementation.name);
    for (const double only : {0, 7, 300}) {
      Case wrong = right;
      wrong.cu_seqlens = Buffer(right.cu_seqlens.dtype(), {1});
      wrong.cu_seqlens.set(0, only);
      wrong.description.cu_seqlens = {0};
      DeviceForward call(implementation.name, wrong);
      expect_told(call, only > 0 ? "must start at 0; got " : "must end at T = 300; got 0 at 0");
    }
  }
}

/// More borders than a block of the kernel has threads, one of them wrong.
TEST(CudaManySequences, TheFirstWrongBorderIsTold) {
  Description x;
  x.T = 2000;
  x.K = x.V = 16;
  x.final_gradient = x.initial_state = false;
  for (std::int64_t n = 0; n <= x.T; ++n) x.cu_seqlens.push_back(n);
  Case right(x);
  for (const delta_rule::Implementation& implementation : implementations_for(right)) {
    SCOPED_TRACE(implementation.name);
    for (const std::int64_t n : {1, 255, 256, 257, 1000, 1999}) {
      Case wrong = right;
      for (const std::int64_t i : {n, n + 1}) wrong.cu_seqlens.set(i, -1);
      DeviceForward call(implementation.name, wrong);
      expect_told(call, "must never decrease; got " + std::to_string(n - 1) + " at " + std::to_string(n - 1) +
                            ", -1 at " + std::to_string(n));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(CuSeqlens, CudaWrongBorders, ::testing::ValuesIn(wrong_borders()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace comba::test
