// The gradients of every implementation of the GPU against the adjoint of the definition in double, by the tolerances
// of delta_rule_case.h. The inputs are rounded to the dtype of the case; only the arithmetic after that is judged.
#include "operators/cuda/accuracy_cases.h"
#include "operators/exact_backward.h"

namespace comba::test {
namespace {

class CudaBackwardAccuracy : public AccuracyTest {
 protected:
  /// Every implementation that has this backward.
  void check(Case& c) {
    const std::vector<delta_rule::Implementation> list = backward_implementations_for(c);
    if (list.empty()) return;
    const Gradients expected = exact_backward(c);
    for (const delta_rule::Implementation& implementation : list) {
      const Gradients grad = backward(implementation, c);
      for_each_gradient(grad, expected, [&](const char* name, const Buffer& x, const Buffer& exact) {
        compare(implementation.name, name, x, exact, c.description);
      });
    }
  }

  void check(const Description& description) {
    Case c(description);
    check(c);
  }

 private:
  void compare(const std::string& implementation, const std::string& name, const Buffer& x, const Buffer& exact,
               const Description& description) {
    ASSERT_EQ(x.given(), exact.given()) << name;
    if (!x.given()) return;
    AccuracyTest::compare(implementation, name, x, exact, description, gradient_tolerance(name, x, description));
  }
};

/// Otherwise the tests below would say nothing.
TEST_F(CudaBackwardAccuracy, EveryDtypeHasABackward) {
  for (const DType dtype : kAllDtypes) {
    Case c(model_call(1, 70, 2, 64, 64, dtype));
    EXPECT_FALSE(backward_implementations_for(c).empty()) << name_of(dtype);
  }
}

TEST_F(CudaBackwardAccuracy, Lengths) {
  for (const DType dtype : kAllDtypes) {
    for (const std::int64_t T : {1, 2, 63, 64, 65, 127, 128, 129, 400}) {
      for (const double log_decay : {0.01, 0.1}) {
        Description x = model_call(1, T, 2, 128, 128, dtype);
        x.log_decay = log_decay;
        x.seed = T;
        check(x);
      }
    }
  }
}

TEST_F(CudaBackwardAccuracy, ShapesOfTheDesign) {
  check(model_call(1, 63, 1, 64, 64));
  check(model_call(2, 300, 3, 60, 60));
  check(model_call(1, 300, 4, 100, 100));
  check(model_call(2, 1000, 2, 128, 128));
  check(model_call(1, 300, 2, 256, 256));
  check(model_call(1, 300, 2, 256, 256, DType::f16));
  check(model_call(1, 300, 2, 256, 256, DType::f32));
}

TEST_F(CudaBackwardAccuracy, SumsOfManyHeads) {
  for (const DType dtype : kAllDtypes) {
    for (const Convention convention : {Convention::paper, Convention::fla}) {
      for (const Rule rule : kRules) {
        Description x = model_call(1, 130, 24, 64, 64, dtype);
        x.convention = convention;
        x.rule = rule;
        check(x);
      }
    }
  }
}

TEST_F(CudaBackwardAccuracy, HeadDims) {
  for (const DType dtype : kAllDtypes) {
    for (const auto& [K, V] : {std::pair{96, 192},
                               {192, 96},
                               {64, 128},
                               {256, 64},
                               {8, 8},
                               {40, 72},
                               {136, 200},
                               {16, 256},
                               {63, 65},
                               {1, 1},
                               {2, 1},
                               {128, 100}}) {
      for (const Rule rule : kRules) {
        Description x = model_call(1, 150, 2, K, V, dtype);
        x.rule = rule;
        if (K == 1) x.l2norm = false;  // normalised, a single number is +-1 and its gradient rounding noise
        if (K > 1 || dtype == DType::f32) check(x);  // without the norm 16 bits leave too little of long products
      }
    }
  }
}

TEST_F(CudaBackwardAccuracy, ValueHeadsThatShareAKeyHead) {
  for (const DType dtype : kAllDtypes) {
    for (const Feedback feedback : {Feedback::scalar, Feedback::per_key_head, Feedback::per_value_head}) {
      for (const std::int64_t group : {1, 2, 4, 8}) {
        Description x = model_call(2, 130, 2, 128, 64, dtype);
        x.HV = 2 * group;
        x.feedback = feedback;
        check(x);
      }
    }
  }
}

TEST_F(CudaBackwardAccuracy, EveryRuleConventionFeedbackGateAndState) {
  for_each_combination(/*T=*/100, /*seed=*/9000, [&](Description x, int bits) {
    x.dtype = kAllDtypes[(x.seed - 1) % 3];
    x.final_gradient = bits & 2;
    check(x);
  });
}

TEST_F(CudaBackwardAccuracy, PackedSequences) {
  const std::vector<std::int64_t> borders[] = {
      {0, 15},
      {0, 256, 500},
      {0, 15, 100, 300, 450},
      {0, 0, 15, 15, 15},
      {0, 0, 0, 15, 100, 100, 300, 300, 500},
      {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 74, 138, 203, 267},
  };
  for (const std::vector<std::int64_t>& cu_seqlens : borders) {
    for (const DType dtype : kAllDtypes) {
      Description x = model_call(1, cu_seqlens.back(), 2, 128, 64, dtype);
      x.cu_seqlens = cu_seqlens;
      x.seed = cu_seqlens.size();  // cu_seqlens of 4 and of 8 bytes
      check(x);
    }
  }
}

TEST_F(CudaBackwardAccuracy, MeanLogDecaysFromNoneToAll) {
  for (const DType dtype : kAllDtypes) {
    for (const double log_decay : {0.0001, 0.01, 0.1, 1.0, 5.0, 20.0}) {
      for (const Rule rule : kRules) {
        for (const bool fused : {false, true}) {
          // Strong decays leave the last token of each head alone with d_final_state: it takes some heads to judge it.
          Description x = model_call(1, 200, 8, 128, 128, dtype);
          x.rule = rule;
          x.log_decay = log_decay;
          x.fused_gates = fused;
          check(x);
        }
      }
    }
  }
}

TEST_F(CudaBackwardAccuracy, GatesAtTheirLimits) {
  for (const DType dtype : kAllDtypes) {
    for (const Rule rule : kRules) {
      Description x = model_call(1, 200, 8, 128, 128, dtype);
      x.rule = rule;
      for (Case& c : cases_at_the_limits_of_gates(x)) check(c);
      x.fused_gates = false;
      Case silent(x);
      for (std::int64_t i = 0; i < silent.beta.count(); ++i) silent.beta.set(i, 0);
      check(silent);
    }
  }
}

TEST_F(CudaBackwardAccuracy, StrengthsOfNothing) {
  for (const DType dtype : kAllDtypes) {
    for (const Convention convention : {Convention::paper, Convention::fla}) {
      Description x = model_call(1, 100, 2, 64, 64, dtype);
      x.convention = convention;
      Case c(x);
      for (std::int64_t i = 0; i < c.b.count(); ++i) c.b.set(i, 0);
      check(c);
      for (std::int64_t i = 0; i < c.d.count(); ++i) c.d.set(i, 0);
      check(c);
    }
  }
}

TEST_F(CudaBackwardAccuracy, KeysOfAnySize) {
  for (const DType dtype : kAllDtypes) {
    for (const double size : {1e-3, 1.0, 1e2, 1e4}) {
      for (const bool correction : {false, true}) {
        Description x = model_call(1, 150, 2, 128, 128, dtype);
        x.key_size = size;
        x.correction = correction;
        check(x);
      }
    }
  }
}

}  // namespace
}  // namespace comba::test
