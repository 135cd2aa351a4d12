#include <gtest/gtest.h>

#include "operators/delta_rule_case.h"

/// What a serving engine asks of decode: states picked by index, drafted tokens taken back, states in bf16.
namespace comba::test {
namespace {

/// A call of decode with more states than rows.
struct Serving {
  Case c;
  Buffer states, indices, num_accepted, o;

  Serving(const Description& x, std::int64_t num_states, DType state_dtype)
      : c(x),
        states(state_dtype, {num_states, x.HV, x.K, x.V}),
        indices(DType::i32, {x.B}),
        num_accepted(DType::i32, {x.B}),
        o(x.dtype, {x.B, x.T, x.HV, x.V}) {
    std::mt19937_64 random(x.seed);
    std::normal_distribution<double> normal;
    for (std::int64_t i = 0; i < states.count(); ++i) states.set(i, normal(random));
    for (std::int64_t b = 0; b < x.B; ++b) {
      indices.set(b, num_states - 1 - b);
      num_accepted.set(b, x.T);
    }
  }

  DeltaRuleDecode args() {
    DeltaRuleDecode args;
    args.options = c.options;
    args.inputs = c.inputs();
    args.inputs.initial_state = {};
    args.state = states.view();
    args.o = o.view();
    args.state_indices = indices.view();
    args.num_accepted = num_accepted.view();
    return args;
  }

  void run(const delta_rule::Implementation& implementation) {
    const DeltaRuleDecode call = args();
    implementation.decode_step(delta_rule::check(call), call, {});
  }
};

/// The tested ones that support the call.
std::vector<delta_rule::Implementation> implementations_for(Serving serving) {
  const delta_rule::Problem problem = delta_rule::check(serving.args());
  std::vector<delta_rule::Implementation> list;
  for (const delta_rule::Implementation& implementation : tested_implementations()) {
    if (implementation.refusal(problem).empty()) list.push_back(implementation);
  }
  EXPECT_FALSE(list.empty());
  return list;
}

/// Part `n` of `count` equal parts.
std::vector<double> part(const Buffer& buffer, std::int64_t n, std::int64_t count) {
  const std::vector<double> all = buffer.values();
  const std::int64_t size = buffer.count() / count;
  return {all.begin() + n * size, all.begin() + (n + 1) * size};
}

Description small_batch(Rule rule, DType dtype) {
  Description x;
  x.rule = rule;
  x.dtype = dtype;
  x.B = 5, x.T = 6, x.H = 2, x.HV = 4, x.K = 40, x.V = 72;
  return x;
}

/// Row b starts from its own state, is written where it came from, and nothing else changes.
void check_against_definition(const Description& x, DType state_dtype, double state_tolerance) {
  const std::int64_t S = x.B + 3;
  Serving before(x, S, state_dtype);
  before.indices.set(1, -1), before.indices.set(3, S);  // both skipped
  before.num_accepted.set(0, 0), before.num_accepted.set(2, 1), before.num_accepted.set(4, x.T - 1);
  Serving expected = before;
  expected.run(reference());
  for (const delta_rule::Implementation& implementation : implementations_for(before)) {
    SCOPED_TRACE(implementation.name + (" " + describe(x)));
    Serving serving = before;
    serving.run(implementation);
    for (std::int64_t b = 0; b < x.B; ++b) {
      const bool skipped = b == 1 || b == 3;
      if (skipped) {
        EXPECT_TRUE(std::isnan(part(serving.o, b, x.B)[0])) << "row " << b << " was to be left as it is";
      } else {
        EXPECT_LT(rms_ratio(part(serving.o, b, x.B), part(expected.o, b, x.B)), tolerance("o", x.dtype)) << "row " << b;
      }
    }
    for (std::int64_t s = 0; s < S; ++s) {
      const bool written = s == S - 1 - 2 || s == S - 1 - 4;
      if (written) {
        EXPECT_LT(rms_ratio(part(serving.states, s, S), part(expected.states, s, S)), state_tolerance) << "state " << s;
      } else {
        EXPECT_EQ(part(serving.states, s, S), part(before.states, s, S)) << "state " << s;
      }
    }
  }
}

TEST(Decode, StatesByIndexAndTokensTakenBack) {
  for (const Rule rule : {Rule::comba, Rule::gated_delta}) {
    for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
      check_against_definition(small_batch(rule, dtype), DType::f32, 1e-5);
    }
  }
}

TEST(Decode, StatesInBf16AreRoundedOnce) {
  check_against_definition(small_batch(Rule::comba, DType::bf16), DType::bf16, 0.003);
}

TEST(Decode, HeadDims) {
  for (const std::int64_t K : {8, 64, 100, 128, 192, 256}) {
    for (const std::int64_t V : {8, 64, 256}) {
      Description x = small_batch(Rule::comba, DType::bf16);
      x.K = K, x.V = V, x.T = 9;
      check_against_definition(x, DType::f32, 1e-5);
    }
  }
}

TEST(Decode, WhatADraftWouldWriteIsWhatTheTokensAloneWrite) {
  const Description x = small_batch(Rule::comba, DType::bf16);
  Serving drafted(x, x.B, DType::f32);
  for (std::int64_t b = 0; b < x.B; ++b) drafted.num_accepted.set(b, 0);
  for (const delta_rule::Implementation& implementation : implementations_for(drafted)) {
    SCOPED_TRACE(implementation.name);
    Serving first = drafted;
    first.run(implementation);
    EXPECT_EQ(first.states.values(), drafted.states.values());
    Serving second = drafted;
    for (std::int64_t b = 0; b < x.B; ++b) second.num_accepted.set(b, x.T);
    second.run(implementation);
    EXPECT_EQ(second.o.values(), first.o.values());
  }
}

}  // namespace
}  // namespace comba::test
