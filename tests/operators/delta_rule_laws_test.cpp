// What must hold whatever the numbers: laws of the recurrence, for every implementation.
#include <gtest/gtest.h>

#include <cmath>
#include <thread>

#include "comba/parallel.h"
#include "operators/delta_rule_case.h"

namespace comba::test {
namespace {

/// Runs `law(implementation)` for each that supports the case.
template <class Law>
void for_each_implementation(const Description& description, const Law& law) {
  Case c(description);
  for (const delta_rule::Implementation& implementation : implementations_for(c)) {
    SCOPED_TRACE(implementation.name);
    law(implementation);
  }
}

/// Tokens [begin, end) of a [B, T, ...] buffer with B = 1.
Buffer slice(const Buffer& buffer, std::int64_t begin, std::int64_t end) {
  if (!buffer.given()) return {};
  std::vector<std::int64_t> sizes = buffer.sizes();
  const std::int64_t row = buffer.count() / sizes[1];
  sizes[1] = end - begin;
  Buffer out(buffer.dtype(), sizes);
  for (std::int64_t i = 0; i < out.count(); ++i) out.set(i, buffer.at(begin * row + i));
  return out;
}

/// The same case cut to tokens [begin, end), without packing.
Case cut(const Case& c, std::int64_t begin, std::int64_t end) {
  Case part = c;
  part.description.T = end - begin;
  part.description.cu_seqlens.clear();
  part.cu_seqlens = {};
  for (Buffer* buffer :
       {&part.q, &part.k, &part.v, &part.p, &part.beta, &part.beta_logit, &part.g, &part.a, &part.d_o}) {
    *buffer = slice(*buffer, begin, end);
  }
  return part;
}

/// Element-wise equality within rounding of what two chunkings may sum in different order.
void expect_same(const Buffer& x, const Buffer& expected, const Description& description) {
  EXPECT_TRUE(close(x.values(), expected.values(), x.sizes(), 2e-6, "tensor", describe(description)));
}

TEST(Laws, PrefillInTwoPartsIsPrefillAtOnce) {
  Description x;
  x.T = 150;
  for_each_implementation(x, [&](const delta_rule::Implementation& implementation) {
    Case c(x);
    const Outputs whole = forward(implementation, c);
    for (const std::int64_t split : {1, 15, 63, 64, 65, 128, 149}) {
      Case first = cut(c, 0, split), second = cut(c, split, x.T);
      const Outputs head = forward(implementation, first);
      second.initial_state = head.final_state;
      const Outputs tail = forward(implementation, second);
      expect_same(head.o, slice(whole.o, 0, split), x);
      expect_same(tail.o, slice(whole.o, split, x.T), x);
      expect_same(tail.final_state, whole.final_state, x);
    }
  });
}

TEST(Laws, DecodeContinuesPrefillAtEverySplit) {
  Description x;
  x.T = 70;
  for_each_implementation(x, [&](const delta_rule::Implementation& implementation) {
    Case c(x);
    const Outputs whole = forward(implementation, c);
    for (std::int64_t split = 1; split < x.T; ++split) {
      Case first = cut(c, 0, split), second = cut(c, split, x.T);
      second.initial_state = forward(implementation, first).final_state;
      const Outputs tail = decode(implementation, second, 1 + split % 3);
      expect_same(tail.o, slice(whole.o, split, x.T), x);
      expect_same(tail.final_state, whole.final_state, x);
    }
  });
}

TEST(Laws, PackedSequencesEqualSeparateOnesBitForBit) {
  Description x;
  x.T = 200;
  x.cu_seqlens = {0, 15, 15, 100, 101, 200};
  for_each_implementation(x, [&](const delta_rule::Implementation& implementation) {
    Case c(x);
    const Outputs packed = forward(implementation, c);
    const std::int64_t state = packed.final_state.count() / c.num_sequences();
    for (std::int64_t n = 0; n < c.num_sequences(); ++n) {
      const std::int64_t begin = x.cu_seqlens[n], end = x.cu_seqlens[n + 1];
      Case alone = cut(c, begin, end);
      alone.initial_state = Buffer(DType::f32, {1, x.HV, x.K, x.V});
      for (std::int64_t i = 0; i < state; ++i) alone.initial_state.set(i, c.initial_state.at(n * state + i));
      const Outputs separate = forward(implementation, alone);
      EXPECT_TRUE(separate.o.same_bits(slice(packed.o, begin, end)));
      for (std::int64_t i = 0; i < state; ++i) {
        ASSERT_EQ(separate.final_state.at(i), packed.final_state.at(n * state + i)) << "sequence " << n;
      }
    }
  });
}

TEST(Laws, NanInOneSequenceOrHeadStaysThere) {
  Description x;
  x.T = 130;
  x.cu_seqlens = {0, 60, 130};
  for_each_implementation(x, [&](const delta_rule::Implementation& implementation) {
    Case clean(x), dirty(x);
    dirty.v.set(70 * x.HV * x.V, std::nan(""));  // sequence 1, head 0
    dirty.k.set(80 * x.H * x.K, std::nan(""));
    dirty.d_o.set(90 * x.HV * x.V, std::nan(""));
    const Outputs a = forward(implementation, clean), b = forward(implementation, dirty);
    const Gradients da = backward(implementation, clean), db = backward(implementation, dirty);
    for (std::int64_t t = 0; t < x.T; ++t) {
      for (std::int64_t head = 0; head < x.HV; ++head) {
        if (t >= 60 && head == 0) continue;
        const std::int64_t v = (t * x.HV + head) * x.V, k = (t * x.H + head) * x.K;
        ASSERT_EQ(a.o.at(v), b.o.at(v)) << t;
        ASSERT_EQ(da.dv.at(v), db.dv.at(v)) << t;
        ASSERT_EQ(da.dk.at(k), db.dk.at(k)) << t;
        ASSERT_EQ(da.da.at(t * x.HV + head), db.da.at(t * x.HV + head)) << t;
      }
    }
    EXPECT_TRUE(std::isnan(b.o.at((129 * x.HV) * x.V)));
  });
}

TEST(Laws, OutputsBeforeAChangedTokenKeepTheirBits) {
  Description x;
  x.T = 140;
  for_each_implementation(x, [&](const delta_rule::Implementation& implementation) {
    Case c(x);
    const Outputs before = forward(implementation, c);
    for (const std::int64_t t : {0, 17, 63, 64, 100, 139}) {
      Case changed = c;
      for (Buffer* buffer : {&changed.q, &changed.k, &changed.v, &changed.beta_logit, &changed.a}) {
        const std::int64_t row = buffer->count() / x.T;
        for (std::int64_t i = 0; i < row; ++i) buffer->set(t * row + i, buffer->at(t * row + i) + 1);
      }
      const Outputs after = forward(implementation, changed);
      EXPECT_TRUE(slice(after.o, 0, t).same_bits(slice(before.o, 0, t)));
      EXPECT_FALSE(slice(after.o, t, x.T).same_bits(slice(before.o, t, x.T)));
    }
  });
}

TEST(Laws, HeadsAreIndependent) {
  Description x;
  x.T = 100;
  x.H = x.HV = 2;
  const auto swapped = [](const Buffer& buffer, int axis) {
    if (!buffer.given()) return Buffer();
    Buffer out = buffer;
    std::int64_t inner = 1;
    for (std::size_t i = axis + 1; i < buffer.sizes().size(); ++i) inner *= buffer.sizes()[i];
    for (std::int64_t i = 0; i < buffer.count(); ++i) out.set(i, buffer.at((i / inner % 2) ? i - inner : i + inner));
    return out;
  };
  for_each_implementation(x, [&](const delta_rule::Implementation& implementation) {
    Case c(x), other(x);
    for (Buffer* buffer : {&other.q, &other.k, &other.v, &other.a, &other.beta_logit, &other.d_o})
      *buffer = swapped(*buffer, 2);
    for (Buffer* buffer : {&other.b, &other.d, &other.A_log, &other.dt_bias}) *buffer = swapped(*buffer, 0);
    for (Buffer* buffer : {&other.initial_state, &other.d_final_state}) *buffer = swapped(*buffer, 1);
    EXPECT_TRUE(swapped(forward(implementation, other).o, 2).same_bits(forward(implementation, c).o));
    const Gradients one = backward(implementation, c), two = backward(implementation, other);
    EXPECT_TRUE(swapped(two.dk, 2).same_bits(one.dk));
    EXPECT_TRUE(swapped(two.dA_log, 0).same_bits(one.dA_log));
  });
}

TEST(Laws, WithoutStepsTheStateOnlyDecays) {
  Description x;
  x.fused_gates = false;
  x.T = 100;
  for_each_implementation(x, [&](const delta_rule::Implementation& implementation) {
    Case c(x);
    c.beta.fill(std::vector<double>(c.beta.count(), 0));
    const Outputs out = forward(implementation, c);
    const std::int64_t state = x.K * x.V;
    for (std::int64_t head = 0; head < x.HV; ++head) {
      double sum = 0;
      for (std::int64_t t = 0; t < x.T; ++t) sum += c.g.at(t * x.HV + head);
      for (std::int64_t i = 0; i < state; ++i) {
        const double expected = std::exp(sum) * c.initial_state.at(head * state + i);
        ASSERT_NEAR(out.final_state.at(head * state + i), expected, 1e-5 * std::abs(expected));
      }
    }
  });
}

TEST(Laws, CombaEqualsGatedDeltaWithFeedbackDividedByTheDecay) {
  // Comba(p) = GDN(p e^{-g}): the feedback of gated_delta sees the state after the decay.
  Description x;
  x.fused_gates = false;
  x.feedback = Feedback::per_value_head;
  x.T = 90;
  for_each_implementation(x, [&](const delta_rule::Implementation& implementation) {
    Case c(x);
    const Outputs comba = forward(implementation, c);
    c.options.rule = Rule::gated_delta;
    for (std::int64_t i = 0; i < c.p.count(); ++i) c.p.set(i, c.p.at(i) * std::exp(-c.g.at(i / x.K)));
    expect_same(forward(implementation, c).o, comba.o, x);
  });
}

/// Sets the number of threads and restores it.
struct Threads {
  explicit Threads(int n) : before(num_threads()) { set_num_threads(n); }
  ~Threads() { set_num_threads(before); }
  int before;
};

TEST(Laws, SameBitsOnEveryRunAndNumberOfThreads) {
  Description many_heads, one_head;
  many_heads.T = 300;
  many_heads.H = 3;
  many_heads.HV = 6;
  many_heads.cu_seqlens = {0, 100, 300};
  one_head.H = one_head.HV = 1;
  one_head.V = 100;  // cut into slices when there are threads enough
  for (const Description& x : {many_heads, one_head}) {
    for_each_implementation(x, [&](const delta_rule::Implementation& implementation) {
      Case c(x);
      const auto all = [&](int threads) {
        const Threads set(threads);
        return std::pair{forward(implementation, c), backward(implementation, c)};
      };
      const auto [out, grad] = all(1);
      for (const int threads : {2, 3, 8}) {
        const auto [out_again, grad_again] = all(threads);
        EXPECT_TRUE(out_again.o.same_bits(out.o)) << threads;
        EXPECT_TRUE(out_again.final_state.same_bits(out.final_state)) << threads;
        EXPECT_TRUE(grad_again.dk.same_bits(grad.dk)) << threads;
        EXPECT_TRUE(grad_again.da.same_bits(grad.da)) << threads;
        EXPECT_TRUE(grad_again.dA_log.same_bits(grad.dA_log)) << threads;
        EXPECT_TRUE(grad_again.db.same_bits(grad.db)) << threads;
      }
    });
  }
}

TEST(Laws, DecodeHasTheSameBitsOnAnyNumberOfThreads) {
  Description x;
  x.H = x.HV = 1;
  x.T = 5;
  x.V = 100;
  for_each_implementation(x, [&](const delta_rule::Implementation& implementation) {
    Case c(x);
    const auto all = [&](int threads) {
      const Threads set(threads);
      return decode(implementation, c, 1);
    };
    const Outputs out = all(1);
    for (const int threads : {2, 3, 8}) {
      const Outputs again = all(threads);
      EXPECT_TRUE(again.o.same_bits(out.o)) << threads;
      EXPECT_TRUE(again.final_state.same_bits(out.final_state)) << threads;
    }
  });
}

TEST(Laws, CallersOnSeveralThreadsGetTheSameBits) {
  Description x;
  x.T = 100;
  const Threads set(2);
  for_each_implementation(x, [&](const delta_rule::Implementation& implementation) {
    Case c(x);
    const Outputs out = forward(implementation, c);
    const Gradients grad = backward(implementation, c);
    std::vector<std::thread> callers;
    for (int caller = 0; caller < 4; ++caller) {
      callers.emplace_back([&] {
        Case own(x);
        EXPECT_TRUE(forward(implementation, own).o.same_bits(out.o));
        EXPECT_TRUE(backward(implementation, own).dk.same_bits(grad.dk));
      });
    }
    for (std::thread& caller : callers) caller.join();
  });
}

}  // namespace
}  // namespace comba::test
