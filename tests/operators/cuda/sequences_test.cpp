// Borders in cu_seqlens cannot be looked at before a call on the GPU is queued. Whatever they say, nothing outside the
// tensors is read or written, and calls after it are right.
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <cmath>

#include "operators/cuda/device_forward.h"

namespace comba::test {
namespace {

constexpr std::int64_t kTokens = 300;

struct WrongBorders {
  const char* name;
  std::vector<double> cu_seqlens;  ///< of three sequences
};

std::vector<WrongBorders> wrong_borders() {
  return {{"decrease", {0, 200, 100, 300}},
          {"decrease_to_nothing", {300, 200, 100, 0}},
          {"overlap", {0, 300, 10, 300}},
          {"end_beyond_the_tokens", {0, 100, 200, 1000}},
          {"are_all_beyond_the_tokens", {301, 1000, 100000, 1000000}},
          {"end_far_beyond", {0, 100, 200, 2147483647}},
          {"are_negative", {-100, -50, -1, 300}},
          {"turn_negative", {0, 100, -100, 300}},
          {"are_far_below", {-2147483648.0, 100, 200, 300}},
          {"start_late", {50, 100, 200, 300}},
          {"end_early", {0, 100, 150, 200}},
          {"swing", {-2147483648.0, 2147483647, -2147483648.0, 2147483647}}};
}

class CudaWrongBorders : public ::testing::TestWithParam<WrongBorders> {};

TEST_P(CudaWrongBorders, TouchNothingElse) {
  for (const DType dtype : {DType::bf16, DType::f32}) {
    for (const std::uint64_t seed : {1, 2}) {  // cu_seqlens of 4 and of 8 bytes
      Description x;
      x.dtype = dtype;
      x.T = kTokens;
      x.H = 2;
      x.HV = 4;
      x.K = x.V = 128;
      x.final_gradient = false;
      x.seed = seed;
      x.cu_seqlens = {0, 100, 200, kTokens};
      Case right(x), wrong(x);
      for (std::size_t i = 0; i < x.cu_seqlens.size(); ++i) {
        double border = GetParam().cu_seqlens[i];
        if (seed == 2 && std::abs(border) > 1e9) border *= 4294967296.0;  // beyond 2^62 as a number of 8 bytes
        wrong.cu_seqlens.set(i, border);
      }
      for (const delta_rule::Implementation& implementation : implementations_for(right)) {
        SCOPED_TRACE(std::string(implementation.name) + "; " + describe(x));
        const Outputs expected = forward(implementation, right);
        {
          DeviceForward call(implementation.name, wrong);  // looks at its guard zones at the end
          call.run();
          ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
          EXPECT_TRUE(call.inputs_intact());
        }
        EXPECT_TRUE(forward(implementation, right).o.same_bits(expected.o)) << "a right call after it";
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(CuSeqlens, CudaWrongBorders, ::testing::ValuesIn(wrong_borders()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace comba::test
