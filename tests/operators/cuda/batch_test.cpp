// What a sequence gives depends on nothing but its own inputs: not on what else a call has, nor on how the call is cut.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "operators/cuda/device_forward.h"
#include "operators/cuda/fusing.h"
#include "operators/cuda/slice_columns.h"

namespace comba::test {
namespace {

Description large(DType dtype) {
  Description x;
  x.dtype = dtype;
  x.T = 300;
  x.H = x.HV = 16;
  x.K = x.V = 128;
  x.final_gradient = false;
  return x;
}

/// Whether `part` has the bits that stand in `whole` from element `begin` on.
::testing::AssertionResult same_bits(const Buffer& part, const Buffer& whole, std::int64_t begin) {
  const std::int64_t bytes = size_of(part.dtype());
  for (std::int64_t i = 0; i < part.count(); ++i) {
    if (std::memcmp(part.data() + i * bytes, whole.data() + (begin + i) * bytes, bytes) != 0) {
      return ::testing::AssertionFailure() << coordinate(i, part.sizes()) << " is " << part.at(i) << ", but "
                                           << whole.at(begin + i) << " in the whole";
    }
  }
  return ::testing::AssertionSuccess();
}

/// Each sequence gives the same bits alone as beside the others.
void expect_independent(const Description& x) {
  Case c(x);
  for (const delta_rule::Implementation& implementation : implementations_for(c)) {
    SCOPED_TRACE(std::string(implementation.name) + "; " + describe(x));
    const Outputs together = forward(implementation, c);
    for (std::int64_t n = 0; n < c.num_sequences(); ++n) {
      SCOPED_TRACE(n);
      Case alone = c.alone(n);
      const Outputs one = forward(implementation, alone);
      const std::int64_t first = x.cu_seqlens.empty() ? n * x.T : x.cu_seqlens[n];
      EXPECT_TRUE(same_bits(one.o, together.o, first * x.HV * x.V));
      EXPECT_TRUE(same_bits(one.final_state, together.final_state, n * x.HV * x.K * x.V));
    }
  }
}

TEST(CudaBatch, RowsAreIndependent) {
  for (const DType dtype : {DType::bf16, DType::f16, DType::f32}) {
    Description x = large(dtype);
    x.B = 8;
    expect_independent(x);
    x.HV = 32;
    x.H = 4;
    x.V = 64;
    expect_independent(x);
  }
}

TEST(CudaBatch, PackedSequencesAreIndependent) {
  for (const DType dtype : {DType::bf16, DType::f16, DType::f32}) {
    Description x = large(dtype);
    x.cu_seqlens = {0, 15, 15, 79, 143, 144, 300};
    expect_independent(x);
  }
}

TEST(CudaBatch, RowsEqualPackedSequencesOfTheSameTokens) {
  Description rows = large(DType::bf16);
  rows.B = 4;
  rows.T = 100;
  Description packed = rows;
  packed.B = 1;
  packed.T = 400;
  packed.cu_seqlens = {0, 100, 200, 300, 400};
  Case one(rows), other(packed);  // the same numbers in the same order
  for (const delta_rule::Implementation& implementation : implementations_for(one)) {
    SCOPED_TRACE(implementation.name);
    const Outputs x = forward(implementation, one), y = forward(implementation, other);
    EXPECT_TRUE(same_bits(x.o, y.o, 0));
    EXPECT_TRUE(same_bits(x.final_state, y.final_state, 0));
  }
}

/// Not a number and infinite in everything that belongs to sequence n.
void spoil(Case& c, std::int64_t n) {
  const Description& x = c.description;
  const std::int64_t begin = x.cu_seqlens[n], end = x.cu_seqlens[n + 1];
  const auto value = [](std::int64_t i) {
    return i % 3 == 0 ? std::numeric_limits<double>::infinity() : std::numeric_limits<double>::quiet_NaN();
  };
  for (Buffer* buffer : {&c.q, &c.k, &c.v, &c.p, &c.beta, &c.beta_logit, &c.g, &c.a}) {
    if (!buffer->given()) continue;
    const std::int64_t row = buffer->count() / x.T;
    for (std::int64_t i = begin * row; i < end * row; ++i) buffer->set(i, value(i));
  }
  const std::int64_t state = x.HV * x.K * x.V;
  for (std::int64_t i = n * state; i < (n + 1) * state; ++i) c.initial_state.set(i, value(i));
}

void expect_nan_stays(bool fused_kernel) {
  const Fusing forced(fused_kernel);
  for (const DType dtype : {DType::bf16, DType::f16, DType::f32}) {
    for (const bool fused : {false, true}) {
      Description x = large(dtype);
      x.H = x.HV = 2;
      x.fused_gates = fused;
      x.cu_seqlens = {0, 100, 128, 150, 150, 215, 300};
      Case clean(x);
      for (const delta_rule::Implementation& implementation : implementations_for(clean)) {
        SCOPED_TRACE(implementation.name);
        const Outputs expected = forward(implementation, clean);
        for (std::int64_t spoilt = 0; spoilt < clean.num_sequences(); ++spoilt) {
          Case dirty(x);
          spoil(dirty, spoilt);
          const Outputs out = forward(implementation, dirty);
          for (std::int64_t n = 0; n < clean.num_sequences(); ++n) {
            const std::int64_t begin = x.cu_seqlens[n], end = x.cu_seqlens[n + 1], state = x.HV * x.K * x.V;
            if (n == spoilt) {
              if (end > begin) {
                EXPECT_TRUE(std::isnan(out.o.at((end - 1) * x.HV * x.V))) << n;
              }
              continue;
            }
            for (std::int64_t i = begin * x.HV * x.V; i < end * x.HV * x.V; ++i) {
              ASSERT_EQ(out.o.at(i), expected.o.at(i)) << "sequence " << n << " beside " << spoilt;
            }
            for (std::int64_t i = n * state; i < (n + 1) * state; ++i) {
              ASSERT_EQ(out.final_state.at(i), expected.final_state.at(i)) << "sequence " << n << " beside " << spoilt;
            }
          }
        }
      }
    }
  }
}

TEST(CudaBatch, NanInASequenceStaysThere) { expect_nan_stays(/*fused_kernel=*/false); }
TEST(CudaBatch, NanInASequenceStaysThereInOneKernel) { expect_nan_stays(/*fused_kernel=*/true); }

TEST(CudaBatch, EveryWidthOfSlicesGivesTheSameBits) {
  for (const DType dtype : {DType::bf16, DType::f16}) {
    for (const std::int64_t K : {64, 96, 128, 256}) {
      for (const std::int64_t V : {8, 40, 64, 128, 192, 256}) {
        for (const bool packed : {false, true}) {
          Description x = large(dtype);
          x.H = x.HV = 2;
          x.K = K;
          x.V = V;
          if (packed) x.cu_seqlens = {0, 15, 15, 79, 143, 144, 300};
          Case c(x);
          for (const delta_rule::Implementation& implementation : implementations_for(c)) {
            SCOPED_TRACE(std::string(implementation.name) + "; " + describe(x));
            const Outputs expected = forward(implementation, c);
            for (const int columns : kSliceColumns) {
              const SliceColumns forced(columns);
              const Outputs out = forward(implementation, c);
              EXPECT_TRUE(same_bits(out.o, expected.o, 0)) << columns << " columns";
              EXPECT_TRUE(same_bits(out.final_state, expected.final_state, 0)) << columns << " columns";
            }
          }
        }
      }
    }
  }
}

/// A race would show as other bits on some run.
TEST(CudaBatch, TwoHundredRunsGiveTheSameBits) {
  for (const DType dtype : {DType::bf16, DType::f32}) {
    for (const bool packed : {false, true}) {
      Description x = large(dtype);
      if (packed) x.cu_seqlens = {0, 15, 15, 79, 143, 144, 300};
      Case c(x);
      for (const char* name : device_implementations_for(c)) {
        for (const int columns : {0, 16, 32, 64, 128}) {
          SCOPED_TRACE(std::string(name) + "; columns " + std::to_string(columns) + "; " + describe(x));
          if (columns > 0 && std::string(name) != "cuda.sm90") continue;
          const SliceColumns forced(columns);
          DeviceForward call(name, c);
          call.poison();
          call.run();
          const Outputs first = call.fetch();
          for (int run = 1; run < 200; ++run) {
            call.poison();
            call.run();
            const Outputs& again = call.fetch();
            ASSERT_TRUE(again.o.same_bits(first.o)) << "run " << run;
            ASSERT_TRUE(again.final_state.same_bits(first.final_state)) << "run " << run;
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace comba::test
