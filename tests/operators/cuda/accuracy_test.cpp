// Every implementation of the GPU against the definition in double, at the lengths and shapes that models have. The
// inputs are rounded to the dtype of the case; only the arithmetic after that is judged, by the tolerances of
// delta_rule_case.h.
#include <optional>

#include "operators/cuda/accuracy_cases.h"
#include "operators/exact_forward.h"

namespace comba::test {
namespace {

constexpr DType kHalfDtypes[] = {DType::bf16, DType::f16};

Description call(std::int64_t B, std::int64_t T, std::int64_t H, std::int64_t K, std::int64_t V,
                 DType dtype = DType::bf16) {
  Description x = model_call(B, T, H, K, V, dtype);
  x.final_gradient = false;
  return x;
}

class CudaAccuracy : public AccuracyTest {
 protected:
  /// Every implementation that supports the case; at least one must.
  void check(Case& c, bool each_chunk = false) {
    const std::vector<delta_rule::Implementation> list = implementations_for(c);
    ASSERT_FALSE(list.empty()) << describe(c.description);
    const Outputs expected = exact_forward(c);
    for (const delta_rule::Implementation& implementation : list) {
      const Outputs out = forward(implementation, c);
      compare(implementation.name, out, expected, c.description, {});
      if (each_chunk) compare_chunks(implementation.name, out.o, expected.o, c.description);
    }
  }

  void check(const Description& description, bool each_chunk = false) {
    Case c(description);
    check(c, each_chunk);
  }

  /// Token by token, the state kept between calls of `tokens_per_call`.
  void check_decode(const Description& description, std::int64_t tokens_per_call) {
    constexpr double kHalfTolerance = 0.002;
    Case c(description);
    const Outputs expected = exact_forward(c);
    int tested = 0;
    for (const delta_rule::Implementation& implementation : implementations_for(c)) {
      if (implementation.decode_step == nullptr) continue;
      const bool half = description.dtype != DType::f32;
      compare(implementation.name, decode(implementation, c, tokens_per_call), expected, description,
              half ? std::optional(kHalfTolerance) : std::nullopt);
      ++tested;
    }
    EXPECT_GT(tested, 0);
  }

 private:
  void compare(const std::string& implementation, const Outputs& x, const Outputs& expected,
               const Description& description, std::optional<double> tolerance_of_all) {
    const auto at_most = [&](const char* name) {
      return tolerance_of_all.value_or(tolerance(name, description.dtype));
    };
    AccuracyTest::compare(implementation, "o", x.o, expected.o, description, at_most("o"));
    AccuracyTest::compare(implementation, "final_state", x.final_state, expected.final_state, description,
                          at_most("final_state"));
  }

  /// Outputs of every 64 tokens of every head, within twice the tolerance of the whole, in which an error of one chunk
  /// or one that grows with the tokens could hide.
  void compare_chunks(const std::string& implementation, const Buffer& o, const Buffer& expected,
                      const Description& x) {
    constexpr std::int64_t kTokens = 64;
    const double at_most = 2 * tolerance("o", x.dtype);
    for (std::int64_t row = 0; row < x.B; ++row) {
      for (std::int64_t head = 0; head < x.HV; ++head) {
        for (std::int64_t first = 0; first + kTokens <= x.T; first += kTokens) {
          std::vector<double> values, exact;
          for (std::int64_t t = first; t < first + kTokens; ++t) {
            const std::int64_t at = ((row * x.T + t) * x.HV + head) * x.V;
            for (std::int64_t i = at; i < at + x.V; ++i) values.push_back(o.at(i)), exact.push_back(expected.at(i));
          }
          const double ratio = rms_ratio(values, exact);
          ASSERT_LE(ratio, at_most) << "o[" << row << ", " << first << "..., " << head << "]; " << describe(x);
          note(implementation, "o of 64 tokens", x, ratio, at_most);
        }
      }
    }
  }
};

/// Otherwise the tests below would say nothing about it.
TEST_F(CudaAccuracy, HopperRunsTheCallsOfModelsItself) {
  Case c(call(1, 2048, 4, 128, 128));
  bool generic = false, sm90 = false;
  for (const delta_rule::Implementation& implementation : implementations_for(c)) {
    generic = generic || std::string(implementation.name) == "cuda.generic";
    sm90 = sm90 || std::string(implementation.name) == "cuda.sm90";
  }
  EXPECT_TRUE(generic);
  bool is_hopper = true;
  for (const delta_rule::Implementation& implementation : tested_implementations()) {
    const std::string refusal = implementation.refusal(delta_rule::check("test", c.options, c.inputs()));
    if (refusal.find("needs a Hopper GPU") != std::string::npos) is_hopper = false;
  }
  EXPECT_EQ(sm90, is_hopper);
}

TEST_F(CudaAccuracy, EveryLengthAndDtype) {
  for (const DType dtype : kAllDtypes) {
    for (const std::int64_t T : {1, 63, 64, 65, 127, 128, 1000, 1024, 2048}) {
      for (const double log_decay : {0.01, 0.1}) {
        Description x = call(1, T, 4, 128, 128, dtype);
        x.log_decay = log_decay;
        x.seed = T;
        check(x);
      }
    }
  }
}

/// From few heads to more than a GPU has multiprocessors: each has its own width of slices.
TEST_F(CudaAccuracy, LongSequencesOfManyHeads) {
  for (const std::int64_t B : {1, 2, 4, 8}) {
    Description x = call(B, 2048, 16, 128, 128);
    x.initial_state = false;
    x.log_decay = 0.03;
    x.seed = B;
    check(x, true);
  }
  Description x = call(1, 4096, 16, 128, 128);
  x.log_decay = 0.01;
  check(x, true);
}

TEST_F(CudaAccuracy, ShapesOfTheDesign) {
  check(call(1, 63, 1, 64, 64));
  check(call(2, 1000, 3, 60, 60));
  check(call(2, 1024, 4, 100, 100));
  check(call(2, 1024, 4, 128, 128));
  check(call(4, 2048, 8, 64, 64));
  check(call(8, 2048, 4, 256, 256));
  check(call(2, 1000, 3, 60, 60, DType::f32));
  check(call(2, 1024, 4, 256, 256, DType::f16));
}

TEST_F(CudaAccuracy, ValueHeadsThatShareAKeyHead) {
  for (const DType dtype : kAllDtypes) {
    for (const std::int64_t group : {1, 2, 4, 8}) {
      Description x = call(2, 300, 2, 128, 64, dtype);
      x.HV = 2 * group;
      check(x);
    }
    Description mamba = call(1, 1024, 1, 128, 64, dtype);
    mamba.HV = 32;
    check(mamba);
  }
}

TEST_F(CudaAccuracy, HeadDims) {
  for (const DType dtype : kAllDtypes) {
    for (const auto& [K, V] : {std::pair{96, 192},
                               {192, 96},
                               {64, 128},
                               {128, 256},
                               {256, 64},
                               {8, 8},
                               {40, 72},
                               {72, 40},
                               {136, 200},
                               {16, 256},
                               {63, 65},
                               {128, 100}}) {
      for (const Rule rule : kRules) {
        Description x = call(1, 200, 2, K, V, dtype);
        x.rule = rule;
        check(x);
      }
    }
  }
}

TEST_F(CudaAccuracy, EveryRuleConventionFeedbackGateAndState) {
  for_each_combination(/*T=*/150, /*seed=*/8000, [&](Description x, int bits) {
    x.dtype = bits % 3 == 0 ? DType::f16 : DType::bf16;
    x.final_gradient = false;
    check(x);
  });
}

TEST_F(CudaAccuracy, PackedSequences) {
  const std::vector<std::int64_t> borders[] = {
      {0, 15},
      {0, 256, 500, 1000},
      {0, 15, 100, 300, 1200, 2000},
      {0, 0, 15, 15, 15},
      {0, 256, 256, 500, 1000, 1000},
      {0, 0, 0, 15, 100, 100, 300, 1200, 1200, 2000},
      {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 74, 138, 203, 267},
  };
  for (const std::vector<std::int64_t>& cu_seqlens : borders) {
    for (const DType dtype : kAllDtypes) {
      for (const std::uint64_t seed : {1, 2}) {  // cu_seqlens of 4 and of 8 bytes
        Description x = call(1, cu_seqlens.back(), 2, 128, 128, dtype);
        x.cu_seqlens = cu_seqlens;
        x.seed = seed;
        check(x);
      }
    }
  }
}

TEST_F(CudaAccuracy, MeanLogDecaysFromNoneToAll) {
  for (const DType dtype : kAllDtypes) {
    for (const double log_decay : {0.0001, 0.01, 0.1, 1.0, 5.0, 20.0}) {
      for (const Rule rule : kRules) {
        for (const bool fused : {false, true}) {
          Description x = call(1, 300, 2, 128, 128, dtype);
          x.rule = rule;
          x.log_decay = log_decay;
          x.fused_gates = fused;
          check(x);
        }
      }
    }
  }
}

TEST_F(CudaAccuracy, GatesAtTheirLimits) {
  for (const DType dtype : kAllDtypes) {
    for (const Rule rule : kRules) {
      Description x = call(1, 400, 2, 128, 128, dtype);
      x.rule = rule;
      for (Case& c : cases_at_the_limits_of_gates(x)) check(c);
    }
  }
}

TEST_F(CudaAccuracy, IdenticalKeys) {
  for (const DType dtype : kAllDtypes) {
    for (const Rule rule : kRules) {
      for (const double log_decay : {0.001, 0.1}) {
        Description x = call(1, 500, 2, 128, 128, dtype);
        x.rule = rule;
        x.identical_keys = true;
        x.log_decay = log_decay;
        check(x);
      }
    }
  }
}

TEST_F(CudaAccuracy, KeysOfAnySize) {
  for (const DType dtype : kAllDtypes) {
    for (const double size : {1e-6, 1e-3, 1.0, 1e2, 1e4}) {
      for (const bool correction : {false, true}) {
        Description x = call(1, 300, 2, 128, 128, dtype);
        x.key_size = size;
        x.correction = correction;
        check(x);
      }
    }
  }
}

TEST_F(CudaAccuracy, DecodeTokenByToken) {
  for (const DType dtype : kAllDtypes) {
    for (const Rule rule : kRules) {
      Description x = call(3, 40, 4, 128, 128, dtype);
      x.rule = rule;
      check_decode(x, 1);
      check_decode(x, 7);
    }
    Description mamba = call(2, 40, 1, 128, 64, dtype), wide = call(1, 40, 2, 96, 192, dtype);
    mamba.HV = 32;
    check_decode(mamba, 1);
    check_decode(wide, 1);
  }
}

/// 131072 tokens: errors must not add up.
TEST_F(CudaAccuracy, NoDriftOverALongSequence) {
  for (const double log_decay : {0.0005, 0.05}) {
    Description x = call(1, 131072, 4, 64, 64);
    x.log_decay = log_decay;
    check(x, true);
  }
}

}  // namespace
}  // namespace comba::test
