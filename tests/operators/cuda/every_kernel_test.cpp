// Each kernel that is compiled runs once, on little data: short enough for compute-sanitizer (make gpu-sanitize).
#include <gtest/gtest.h>

#include "operators/cuda/device_backward.h"
#include "operators/cuda/fusing.h"
#include "operators/cuda/slice_columns.h"
#include "operators/exact_forward.h"

namespace comba::test {
namespace {

Description small(DType dtype, std::int64_t K, std::int64_t V) {
  Description x;
  x.dtype = dtype;
  x.T = 350;  // more chunks than a ring has places, and the last one is not full
  x.H = 1;
  x.HV = 2;
  x.K = K;
  x.V = V;
  x.final_gradient = false;
  return x;
}

void check_forward(const Description& x) {
  Case c(x);
  const Outputs expected = exact_forward(c);
  for (const delta_rule::Implementation& implementation : implementations_for(c)) {
    for (const int columns : {0, 16, 32, 64, 128}) {
      if (columns > 0 && std::string(implementation.name) != "cuda.sm90") continue;
      SCOPED_TRACE(std::string(implementation.name) + ", columns " + std::to_string(columns));
      const SliceColumns forced(columns);
      expect_close(forward(implementation, c), expected, x);
    }
    SCOPED_TRACE(std::string(implementation.name) + ", fused");
    const Fusing fused(true);
    expect_close(forward(implementation, c), expected, x);
  }
}

/// Key dims, each of which is padded to another multiple.
constexpr std::int64_t kKeyDims[] = {32, 64, 128, 192, 256};

TEST(CudaEveryKernel, Rows) {
  for (const DType dtype : {DType::bf16, DType::f16, DType::f32}) {
    for (const std::int64_t K : kKeyDims) {
      check_forward(small(dtype, K, 136));
      check_forward(small(dtype, K, 128));
      check_forward(small(dtype, K, 40));
      check_forward(small(dtype, K - 1, 33));  // rows that nobody may read in pieces of 16 bytes
    }
  }
}

TEST(CudaEveryKernel, PackedSequences) {
  for (const DType dtype : {DType::bf16, DType::f16, DType::f32}) {
    for (const std::int64_t K : {64, 128, 256}) {
      for (const std::int64_t V : {128, 136}) {
        Description x = small(dtype, K, V);
        x.cu_seqlens = {0, 15, 15, 100, 350};
        check_forward(x);
      }
    }
  }
}

TEST(CudaEveryKernel, FullFeedback) {
  for (const DType dtype : {DType::bf16, DType::f16}) {
    for (const std::int64_t K : {64, 128, 256}) {
      for (const Feedback feedback : {Feedback::per_key_head, Feedback::per_value_head}) {
        for (const Convention convention : {Convention::paper, Convention::fla}) {
          Description x = small(dtype, K, K == 128 ? 128 : 136);
          x.feedback = feedback;
          x.convention = convention;
          x.correction = convention == Convention::paper || feedback == Feedback::per_key_head;
          check_forward(x);
          x.cu_seqlens = {0, 15, 15, 100, 350};
          check_forward(x);
        }
      }
    }
  }
}

TEST(CudaEveryKernel, Backward) {
  for (const DType dtype : {DType::bf16, DType::f16, DType::f32}) {
    for (const std::int64_t K : kKeyDims) {
      for (const auto& [dim, V] : {std::pair{K, std::int64_t{136}}, {K - 1, std::int64_t{33}}}) {
        Description x = small(dtype, dim, V);
        x.T = 150;
        x.cu_seqlens = {0, 15, 15, 100, 150};
        x.feedback = V == 33 ? Feedback::per_value_head : Feedback::scalar;
        Case c(x);
        for (const delta_rule::Implementation& implementation : backward_implementations_for(c)) {
          SCOPED_TRACE(implementation.name);
          EXPECT_TRUE(same_bits(backward(implementation, c), backward(implementation, c)));
        }
      }
    }
  }
}

TEST(CudaEveryKernel, Decode) {
  for (const DType dtype : {DType::bf16, DType::f16, DType::f32}) {
    for (const std::int64_t K : kKeyDims) {
      for (const std::int64_t V : {33, 136}) {
        Description x = small(dtype, K, V);
        x.T = 3;
        Case c(x);
        const Outputs expected = exact_forward(c);
        for (const delta_rule::Implementation& implementation : implementations_for(c)) {
          if (implementation.decode_step == nullptr) continue;
          SCOPED_TRACE(implementation.name);
          expect_close(decode(implementation, c, 1), expected, x);
        }
      }
    }
  }
}

}  // namespace
}  // namespace comba::test
