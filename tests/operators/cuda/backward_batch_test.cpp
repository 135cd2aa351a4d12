// The gradients of a sequence depend on nothing but its own inputs, not on what else a call has or asks for, and are
// the same on every run.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "operators/cuda/device_backward.h"

namespace comba::test {
namespace {

constexpr DType kAllDtypes[] = {DType::bf16, DType::f16, DType::f32};

Description large(DType dtype) {
  Description x;
  x.dtype = dtype;
  x.T = 300;
  x.H = 2;
  x.HV = 4;
  x.K = 128;
  x.V = 64;
  return x;
}

/// The gradients that belong to one sequence, not to all of them.
Gradients of_sequences(Gradients x) {
  x.db = x.dd = x.dA_log = x.ddt_bias = {};
  return x;
}

/// Whether `part`, where it is given, has the bits that stand in `whole` from row `first` of `rows` on.
::testing::AssertionResult same_rows(const Buffer& part, const Buffer& whole, std::int64_t first, std::int64_t rows) {
  if (!part.given()) return ::testing::AssertionSuccess();
  const std::int64_t bytes = whole.count() / rows * size_of(whole.dtype());
  if (std::memcmp(part.data(), whole.data() + first * bytes, part.count() * size_of(part.dtype())) == 0) {
    return ::testing::AssertionSuccess();
  }
  return ::testing::AssertionFailure() << "other bits";
}

/// Each sequence gives the same bits alone as beside the others.
void expect_independent(const Description& x) {
  Case c(x);
  for (const delta_rule::Implementation& implementation : backward_implementations_for(c)) {
    SCOPED_TRACE(std::string(implementation.name) + "; " + describe(x));
    const Gradients together = backward(implementation, c);
    for (std::int64_t n = 0; n < c.num_sequences(); ++n) {
      Case alone = c.alone(n);
      const Gradients one = of_sequences(backward(implementation, alone));
      const std::int64_t first = x.cu_seqlens.empty() ? n * x.T : x.cu_seqlens[n];
      for_each_gradient(one, together, [&](const std::string& name, const Buffer& part, const Buffer& whole) {
        const bool state = name == "d_initial_state";
        EXPECT_TRUE(same_rows(part, whole, state ? n : first, state ? c.num_sequences() : x.B * x.T))
            << name << " of sequence " << n;
      });
    }
  }
}

TEST(CudaBackwardBatch, RowsAreIndependent) {
  for (const DType dtype : kAllDtypes) {
    Description x = large(dtype);
    x.B = 3;
    expect_independent(x);
  }
}

TEST(CudaBackwardBatch, PackedSequencesAreIndependent) {
  for (const DType dtype : kAllDtypes) {
    Description x = large(dtype);
    x.cu_seqlens = {0, 15, 15, 79, 143, 144, 300};
    expect_independent(x);
  }
}

/// Not a number and infinite in everything that belongs to sequence n.
void spoil(Case& c, std::int64_t n) {
  const Description& x = c.description;
  const std::int64_t begin = x.cu_seqlens[n], end = x.cu_seqlens[n + 1];
  const auto value = [](std::int64_t i) {
    return i % 3 == 0 ? std::numeric_limits<double>::infinity() : std::numeric_limits<double>::quiet_NaN();
  };
  for (Buffer* buffer : {&c.q, &c.k, &c.v, &c.p, &c.beta, &c.beta_logit, &c.g, &c.a, &c.d_o}) {
    if (!buffer->given()) continue;
    const std::int64_t row = buffer->count() / x.T;
    for (std::int64_t i = begin * row; i < end * row; ++i) buffer->set(i, value(i));
  }
  const std::int64_t state = x.HV * x.K * x.V;
  for (std::int64_t i = n * state; i < (n + 1) * state; ++i) {
    c.initial_state.set(i, value(i));
    c.d_final_state.set(i, value(i));
  }
}

TEST(CudaBackwardBatch, NanInASequenceStaysThere) {
  for (const DType dtype : kAllDtypes) {
    for (const bool fused : {false, true}) {
      Description x = large(dtype);
      x.fused_gates = fused;
      x.cu_seqlens = {0, 100, 128, 150, 150, 215, 300};
      Case clean(x);
      for (const delta_rule::Implementation& implementation : backward_implementations_for(clean)) {
        SCOPED_TRACE(std::string(implementation.name) + "; " + describe(x));
        const Gradients expected = of_sequences(backward(implementation, clean));
        for (std::int64_t spoilt = 0; spoilt < clean.num_sequences(); ++spoilt) {
          Case dirty(x);
          spoil(dirty, spoilt);
          const Gradients grad = of_sequences(backward(implementation, dirty));
          for_each_gradient(grad, expected, [&](const std::string& name, const Buffer& one, const Buffer& other) {
            const bool state = name == "d_initial_state";
            const std::int64_t row = one.given() ? one.count() / (state ? clean.num_sequences() : x.T) : 0;
            const std::int64_t begin = state ? spoilt : x.cu_seqlens[spoilt];
            const std::int64_t end = state ? spoilt + 1 : x.cu_seqlens[spoilt + 1];
            for (std::int64_t i = 0; one.given() && i < one.count(); ++i) {
              if (i >= begin * row && i < end * row) continue;
              ASSERT_EQ(one.at(i), other.at(i)) << name << coordinate(i, one.sizes()) << " beside " << spoilt;
            }
          });
        }
      }
    }
  }
}

/// What is not asked for changes nothing about the rest.
TEST(CudaBackwardBatch, EachGradientAloneHasTheSameBits) {
  for (const DType dtype : {DType::bf16, DType::f32}) {
    for (const Feedback feedback : {Feedback::scalar, Feedback::per_value_head}) {
      for (const bool fused : {false, true}) {
        Description x = large(dtype);
        x.fused_gates = fused;
        x.feedback = feedback;
        Case c(x);
        for (const delta_rule::Implementation& implementation : backward_implementations_for(c)) {
          SCOPED_TRACE(std::string(implementation.name) + "; " + describe(x));
          const Gradients all = backward(implementation, c);
          for_each_gradient(all, all, [&](const std::string& name, const Buffer& expected, const Buffer&) {
            if (!expected.given()) return;
            DeviceBackward call(implementation.name, c, nullptr, name);
            call.run();
            for_each_gradient(call.fetch(), all, [&](const std::string& other, const Buffer& one, const Buffer&) {
              if (other == name) {
                EXPECT_TRUE(one.same_bits(expected)) << name;
              }
            });
            EXPECT_TRUE(call.inputs_intact());
          });
        }
      }
    }
  }
}

/// A race, or a sum in no fixed order, would show as other bits on some run.
TEST(CudaBackwardBatch, AHundredRunsGiveTheSameBits) {
  for (const DType dtype : kAllDtypes) {
    for (const bool packed : {false, true}) {
      Description x = large(dtype);
      x.H = 4;
      x.HV = 16;
      if (packed) x.cu_seqlens = {0, 15, 15, 79, 143, 144, 300};
      Case c(x);
      for (const delta_rule::Implementation& implementation : backward_implementations_for(c)) {
        SCOPED_TRACE(std::string(implementation.name) + "; " + describe(x));
        DeviceBackward call(implementation.name, c);
        call.poison();
        call.run();
        const Gradients first = call.fetch();
        for (int run = 1; run < 100; ++run) {
          call.poison();
          call.run();
          ASSERT_TRUE(same_bits(call.fetch(), first)) << "run " << run;
        }
      }
    }
  }
}

}  // namespace
}  // namespace comba::test
