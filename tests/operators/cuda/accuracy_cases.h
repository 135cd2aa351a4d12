#pragma once

#include <gtest/gtest.h>

#include <cstdio>
#include <limits>
#include <map>
#include <string>
#include <vector>

#include "operators/delta_rule_case.h"

/// What outputs and gradients are judged by alike.
namespace comba::test {

inline constexpr DType kAllDtypes[] = {DType::bf16, DType::f16, DType::f32};
inline constexpr Rule kRules[] = {Rule::comba, Rule::gated_delta};

/// A call as models make it: paper convention, fused gates, b and d.
inline Description model_call(std::int64_t B, std::int64_t T, std::int64_t H, std::int64_t K, std::int64_t V,
                              DType dtype = DType::bf16) {
  Description x;
  x.dtype = dtype;
  x.B = B;
  x.T = T;
  x.H = x.HV = H;
  x.K = K;
  x.V = V;
  return x;
}

/// use(description, bits) for each of the 256 calls that differ in rule, convention, correction, gates, norm, state (a
/// bit each, from the lowest) and feedback. Their seeds follow `seed`.
template <class Use>
void for_each_combination(std::int64_t T, std::uint64_t seed, const Use& use) {
  for (int bits = 0; bits < 64; ++bits) {
    for (const Feedback feedback :
         {Feedback::unit, Feedback::scalar, Feedback::per_key_head, Feedback::per_value_head}) {
      Description x = model_call(2, T, 2, 64, 64);
      x.HV = 4;
      x.feedback = feedback;
      x.rule = kRules[bits & 1];
      x.convention = bits & 2 ? Convention::fla : Convention::paper;
      x.correction = (bits & 4) && !(x.convention == Convention::fla && feedback == Feedback::per_value_head);
      x.fused_gates = bits & 8;
      x.l2norm = bits & 16;
      x.initial_state = bits & 32;
      x.seed = ++seed;
      use(x, bits);
    }
  }
}

/// A call without fused gates, some of whose g and beta are as far out as they may be; one that forgets everything at
/// each token, and one that forgets nothing.
inline std::vector<Case> cases_at_the_limits_of_gates(Description x) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  x.fused_gates = false;
  Case some(x), forgetful(x), mindful(x);
  for (std::int64_t i = 0; i < some.g.count(); ++i) {
    if (i % 7 == 0) some.g.set(i, -kInfinity);  // alpha = 0
    if (i % 5 == 0) some.g.set(i, 0);           // alpha = 1
    if (i % 3 == 0) some.beta.set(i, i % 2);    // beta 0 and 1
    if (i % 11 == 0) some.g.set(i, -1000);      // below the clamp
    forgetful.g.set(i, -kInfinity);
    mindful.g.set(i, 0);
  }
  return {some, forgetful, mindful};
}

class AccuracyTest : public testing::Test {
 protected:
  /// Within `at_most`, in RMS relative to the exact values.
  void compare(const std::string& implementation, const std::string& name, const Buffer& x, const Buffer& exact,
               const Description& description, double at_most) {
    const std::vector<double> values = x.values(), reference = exact.values();
    EXPECT_TRUE(x.guards_intact()) << implementation << " " << name << "; " << describe(description);
    EXPECT_TRUE(close(values, reference, x.sizes(), at_most, implementation + " " + name, describe(description)));
    note(implementation, name, description, rms_ratio(values, reference), at_most);
  }

  void note(const std::string& implementation, const std::string& name, const Description& description, double ratio,
            double tolerance) {
    Worst& worst = worst_[implementation + " " + name_of(description.dtype) + " " + name];
    if (ratio > worst.ratio) worst = {ratio, tolerance};
  }

  /// The largest error of each implementation and tensor, next to its tolerance: how much room is left.
  void TearDown() override {
    for (const auto& [what, worst] : worst_) {
      std::printf("  %-36s RMS ratio up to %.2e, at most %.0e\n", what.c_str(), worst.ratio, worst.tolerance);
    }
  }

 private:
  struct Worst {
    double ratio = 0, tolerance = 0;
  };
  std::map<std::string, Worst> worst_;
};

}  // namespace comba::test
