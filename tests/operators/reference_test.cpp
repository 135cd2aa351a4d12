// The definition itself: its adjoint against central differences, and known answers worked out by hand.
#include "operators/delta_rule/reference.h"

#include <gtest/gtest.h>

#include <random>

#include "support/compare.h"

namespace comba::test {
namespace {

using reference::DeltaRule;
using reference::Tensors;
using reference::Vector;

struct Variant {
  bool gated_delta, fla, l2norm, fused_gates;
  int feedback;  // 0 none, 1 b, 2 p of H heads, 3 p of HV heads
};

class ReferenceGradients : public testing::TestWithParam<Variant> {};

Vector draw(std::mt19937_64& random, std::int64_t count, double mean, double deviation) {
  std::normal_distribution<double> normal(mean, deviation);
  Vector values(count);
  for (double& value : values) value = normal(random);
  return values;
}

DeltaRule make(const Variant& variant, std::mt19937_64& random) {
  DeltaRule x;
  x.gated_delta = variant.gated_delta;
  x.fla = variant.fla;
  x.l2norm = variant.l2norm;
  x.scale = 0.7;
  x.beta_scale = variant.gated_delta ? 2 : 1;
  x.H = 2;
  x.HV = 4;
  x.P_heads = variant.feedback == 3 ? 4 : 2;
  x.K = 3;
  x.V = 2;
  x.sequences = {{0, 4}, {4, 0}, {4, 3}};
  const std::int64_t T = 7;
  x.in.q = draw(random, T * x.H * x.K, 0, 0.6);
  x.in.k = draw(random, T * x.H * x.K, 0, 0.6);
  x.in.v = draw(random, T * x.HV * x.V, 0, 1);
  if (variant.feedback == 1) x.in.b = draw(random, x.H, 0.7, 0.1);
  if (variant.feedback >= 2) x.in.p = draw(random, T * x.P_heads * x.K, 0, 0.5);
  if (!(variant.fla && variant.feedback == 3)) x.in.d = draw(random, x.H, 0.3, 0.3);
  if (variant.fused_gates) {
    x.in.beta_logit = draw(random, T * x.HV, 0, 1);
    x.in.a = draw(random, T * x.HV, 0, 1);
    x.in.A_log = draw(random, x.HV, -1, 0.3);
    x.in.dt_bias = draw(random, x.HV, 0, 0.5);
  } else {
    x.in.beta = draw(random, T * x.HV, 0.5, 0.2);
    x.in.g = draw(random, T * x.HV, -0.5, 0.1);
  }
  x.in.initial_state = draw(random, 3 * x.HV * x.K * x.V, 0, 1);
  return x;
}

TEST_P(ReferenceGradients, EqualCentralDifferences) {
  std::mt19937_64 random(7);
  DeltaRule x = make(GetParam(), random);
  const DeltaRule::Outputs shapes = x.forward();
  const Vector d_o = draw(random, static_cast<std::int64_t>(shapes.o.size()), 0, 1);
  const Vector d_final_state = draw(random, static_cast<std::int64_t>(shapes.final_state.size()), 0, 1);
  const auto loss = [&] {
    const DeltaRule::Outputs out = x.forward();
    return reference::dot(out.o, d_o) + reference::dot(out.final_state, d_final_state);
  };
  const Tensors grad = x.backward(d_o, d_final_state);
  const auto check = [&](const char* name, Vector& input, const Vector& gradient) {
    ASSERT_EQ(input.size(), gradient.size()) << name;
    Vector difference(input.size());
    for (std::size_t i = 0; i < input.size(); ++i) {
      const double kept = input[i], step = 1e-5;
      input[i] = kept + step;
      const double above = loss();
      input[i] = kept - step;
      difference[i] = (above - loss()) / (2 * step);
      input[i] = kept;
    }
    EXPECT_TRUE(close(gradient, difference, {static_cast<std::int64_t>(input.size())}, 1e-8, name, ""));
  };
  check("dq", x.in.q, grad.q);
  check("dk", x.in.k, grad.k);
  check("dv", x.in.v, grad.v);
  check("dp", x.in.p, grad.p);
  check("db", x.in.b, grad.b);
  check("dd", x.in.d, grad.d);
  check("dbeta", x.in.beta, grad.beta);
  check("dbeta_logit", x.in.beta_logit, grad.beta_logit);
  check("dg", x.in.g, grad.g);
  check("da", x.in.a, grad.a);
  check("dA_log", x.in.A_log, grad.A_log);
  check("ddt_bias", x.in.dt_bias, grad.dt_bias);
  check("d_initial_state", x.in.initial_state, grad.initial_state);
}

std::vector<Variant> all_variants() {
  std::vector<Variant> variants;
  for (int bits = 0; bits < 16; ++bits) {
    for (int feedback = 0; feedback < 4; ++feedback) {
      variants.push_back({(bits & 1) != 0, (bits & 2) != 0, (bits & 4) != 0, (bits & 8) != 0, feedback});
    }
  }
  return variants;
}

std::string name_of(const testing::TestParamInfo<Variant>& info) {
  const Variant& x = info.param;
  const char* feedback[] = {"unit", "b", "p_per_key_head", "p_per_value_head"};
  return std::string(x.gated_delta ? "gated_delta" : "comba") + (x.fla ? "_fla" : "_paper") +
         (x.l2norm ? "_l2norm" : "_raw") + (x.fused_gates ? "_fused_" : "_plain_") + feedback[x.feedback];
}

INSTANTIATE_TEST_SUITE_P(AllVariants, ReferenceGradients, testing::ValuesIn(all_variants()), name_of);

/// One head with K = V = 1, no norm, scale 1: the recurrence is scalar arithmetic.
DeltaRule scalar_case(bool gated_delta) {
  DeltaRule x;
  x.gated_delta = gated_delta;
  x.l2norm = false;
  x.sequences = {{0, 2}};
  x.in.q = {1, 2};
  x.in.k = {1, 0.5};
  x.in.v = {3, 5};
  x.in.p = {0.5, 2};
  x.in.beta = {0.5, 1};
  x.in.g = {std::log(0.5), std::log(0.25)};
  x.in.initial_state = {4};
  return x;
}

TEST(Reference, CombaCorrectsWithTheUndecayedState) {
  // t1: u = 0.5 (3 - 4 * 0.5) = 0.5, h = 0.5 * 4 + 0.5 = 2.5, o = 2.5
  // t2: u = 5 - 2.5 * 2 = 0,         h = 0.25 * 2.5 = 0.625,   o = 1.25
  const DeltaRule::Outputs out = scalar_case(false).forward();
  EXPECT_DOUBLE_EQ(out.o[0], 2.5);
  EXPECT_DOUBLE_EQ(out.o[1], 1.25);
  EXPECT_DOUBLE_EQ(out.final_state[0], 0.625);
}

TEST(Reference, GatedDeltaCorrectsWithTheDecayedState) {
  // t1: h' = 2, u = 0.5 (3 - 2 * 0.5) = 1,     h = 3,                       o = 3
  // t2: h' = 0.75, u = 5 - 0.75 * 2 = 3.5,     h = 0.75 + 0.5 * 3.5 = 2.5,  o = 5
  const DeltaRule::Outputs out = scalar_case(true).forward();
  EXPECT_DOUBLE_EQ(out.o[0], 3);
  EXPECT_DOUBLE_EQ(out.o[1], 5);
  EXPECT_DOUBLE_EQ(out.final_state[0], 2.5);
}

}  // namespace
}  // namespace comba::test
