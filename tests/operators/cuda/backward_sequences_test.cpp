// Borders in cu_seqlens cannot be looked at before a call on the GPU is queued. Whatever they say, nothing outside the
// tensors is read or written by backward, and calls after it are right. Wrong ones make every gradient NaN, and
// check_borders() says which one is wrong.
#include <gtest/gtest.h>

#include "operators/cuda/device_backward.h"
#include "operators/cuda/wrong_borders.h"

namespace comba::test {
namespace {

class CudaBackwardWrongBorders : public ::testing::TestWithParam<WrongBorders> {};

TEST_P(CudaBackwardWrongBorders, TouchNothingElseAndAreTold) {
  for (const DType dtype : {DType::bf16, DType::f32}) {
    for (const std::uint64_t seed : {1, 2}) {  // cu_seqlens of 4 and of 8 bytes
      Description x;
      x.dtype = dtype;
      x.T = WrongBorders::kTokens;
      x.H = 2;
      x.HV = 4;
      x.K = x.V = 128;
      x.seed = seed;
      x.cu_seqlens = {0, 100, 200, WrongBorders::kTokens};
      Case right(x), wrong(x);
      GetParam().put_into(wrong.cu_seqlens);
      for (const delta_rule::Implementation& implementation : backward_implementations_for(right)) {
        SCOPED_TRACE(std::string(implementation.name) + "; " + describe(x));
        const Gradients expected = backward(implementation, right);
        {
          DeviceBackward call(implementation.name, wrong);  // looks at its guard zones at the end
          call.clear();
          call.run();
          const std::string found = found_by(call);
          EXPECT_NE(found.find("[delta_rule_backward] cu_seqlens " + GetParam().message), std::string::npos) << found;
          const Gradients& out = call.fetch();
          for_each_gradient(out, out, [](const std::string& name, const Buffer& gradient, const Buffer&) {
            EXPECT_TRUE(!gradient.given() || all_nan(gradient)) << name;
          });
          EXPECT_TRUE(call.inputs_intact());
        }
        DeviceBackward call(implementation.name, right);
        call.run();
        EXPECT_EQ(found_by(call), "") << "a right call after it";
        EXPECT_TRUE(same_bits(call.fetch(), expected));
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(CuSeqlens, CudaBackwardWrongBorders, ::testing::ValuesIn(wrong_borders()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace comba::test
