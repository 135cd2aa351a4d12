// Every implementation against the definition.
#include <gtest/gtest.h>

#include "operators/delta_rule_case.h"

namespace comba::test {
namespace {

/// Forward and backward of every implementation that supports the case against the definition.
void check_against_definition(const Description& description) {
  Case c(description);
  const Outputs expected = forward(reference(), c);
  const Gradients expected_gradients = backward(reference(), c);
  for (const delta_rule::Implementation& implementation : implementations_for(c)) {
    SCOPED_TRACE(implementation.name);
    expect_close(forward(implementation, c), expected, description);
    expect_close(backward(implementation, c), expected_gradients, description);
  }
}

TEST(DeltaRule, EveryLengthUpTo130) {
  for (std::int64_t T = 1; T <= 130; ++T) {
    Description x = random_description(1000 + T);
    x.B = 1;
    x.T = T;
    x.cu_seqlens.clear();
    check_against_definition(x);
  }
}

TEST(DeltaRule, RandomCases) {
  for (std::uint64_t seed = 0; seed < 150; ++seed) check_against_definition(random_description(seed));
}

TEST(DeltaRule, EveryRuleConventionFeedbackAndGate) {
  std::uint64_t seed = 5000;
  for (const Rule rule : {Rule::comba, Rule::gated_delta}) {
    for (const Convention convention : {Convention::paper, Convention::fla}) {
      for (const Feedback feedback :
           {Feedback::unit, Feedback::scalar, Feedback::per_key_head, Feedback::per_value_head}) {
        for (const bool fused : {false, true}) {
          for (const bool l2norm : {false, true}) {
            Description x;
            x.rule = rule;
            x.convention = convention;
            x.feedback = feedback;
            x.fused_gates = fused;
            x.l2norm = l2norm;
            x.HV = 4;
            x.correction = !(convention == Convention::fla && feedback == Feedback::per_value_head);
            x.T = 97;
            x.K = 24;
            x.V = 20;
            x.seed = ++seed;
            check_against_definition(x);
          }
        }
      }
    }
  }
}

TEST(DeltaRule, HeadDims) {
  for (const auto& [K, V] :
       {std::pair{64, 64}, {128, 128}, {256, 256}, {60, 60}, {100, 100}, {128, 64}, {96, 192}, {1, 1}, {255, 3}}) {
    for (const Rule rule : {Rule::comba, Rule::gated_delta}) {
      Description x;
      x.rule = rule;
      x.T = 131;
      x.H = x.HV = 1;
      x.K = K;
      x.V = V;
      x.l2norm = K > 1;
      check_against_definition(x);
    }
  }
}

TEST(DeltaRule, HalfPrecisionInputs) {
  for (const DType dtype : {DType::bf16, DType::f16}) {
    for (std::uint64_t seed = 200; seed < 220; ++seed) {
      Description x = random_description(seed);
      x.dtype = dtype;
      check_against_definition(x);
    }
  }
}

TEST(DeltaRule, StrongAndWeakDecay) {
  for (const double log_decay : {0.0001, 0.01, 1.0, 5.0, 20.0}) {
    for (const Rule rule : {Rule::comba, Rule::gated_delta}) {
      Description x;
      x.rule = rule;
      x.T = 200;
      x.log_decay = log_decay;
      x.fused_gates = false;
      check_against_definition(x);
    }
  }
}

TEST(DeltaRule, GatesAtTheirLimits) {
  Description x;
  x.fused_gates = false;
  x.T = 100;
  for (const Rule rule : {Rule::comba, Rule::gated_delta}) {
    x.rule = rule;
    Case c(x);
    for (std::int64_t i = 0; i < c.g.count(); ++i) {
      if (i % 7 == 0) c.g.set(i, -std::numeric_limits<double>::infinity());  // alpha = 0
      if (i % 5 == 0) c.g.set(i, 0);                                         // alpha = 1
      if (i % 3 == 0) c.beta.set(i, i % 2);                                  // beta 0 and 1
    }
    const Outputs expected = forward(reference(), c);
    const Gradients expected_gradients = backward(reference(), c);
    for (const double value : expected_gradients.dg.values()) ASSERT_TRUE(std::isfinite(value));
    for (const delta_rule::Implementation& implementation : implementations_for(c)) {
      SCOPED_TRACE(implementation.name);
      expect_close(forward(implementation, c), expected, x);
      expect_close(backward(implementation, c), expected_gradients, x);
    }
  }
}

TEST(DeltaRule, KeysOfAnySize) {
  for (const double size : {1e-6, 1e-3, 1e4}) {
    Description x;
    x.key_size = size;
    x.correction = false;
    check_against_definition(x);
  }
}

TEST(DeltaRule, IdenticalKeys) {
  for (const Rule rule : {Rule::comba, Rule::gated_delta}) {
    Description x;
    x.rule = rule;
    x.identical_keys = true;
    x.T = 200;
    x.log_decay = 0.001;
    check_against_definition(x);
  }
}

TEST(DeltaRule, DecodeEqualsTheDefinition) {
  for (std::uint64_t seed = 300; seed < 330; ++seed) {
    Description x = random_description(seed);
    x.cu_seqlens.clear();
    Case c(x);
    const Outputs expected = forward(reference(), c);
    for (const delta_rule::Implementation& implementation : implementations_for(c)) {
      SCOPED_TRACE(implementation.name);
      expect_close(decode(implementation, c, 1), expected, x);
      expect_close(decode(implementation, c, 1 + seed % 100), expected, x);
    }
  }
}

TEST(DeltaRule, NoTokensAndNoSequences) {
  for (const std::vector<std::int64_t>& cu_seqlens : {std::vector<std::int64_t>{}, {0}, {0, 0, 0}}) {
    Description x;
    x.T = 0;
    x.cu_seqlens = cu_seqlens;
    check_against_definition(x);
  }
}

}  // namespace
}  // namespace comba::test
