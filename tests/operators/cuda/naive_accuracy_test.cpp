// No implementation of the GPU has twice the error of the same maths done naively in the dtype of its inputs. That is
// much less than the fixed tolerances where the numbers are kind, above all in fp16.
#include <gtest/gtest.h>

#include <cstdio>

#include "operators/exact_forward.h"
#include "operators/naive_forward.h"

namespace comba::test {
namespace {

/// The largest error of a test in parts of the naive one.
class CudaNaiveAccuracy : public testing::Test {
 protected:
  void check(const Description& x) {
    Case c(x);
    const Outputs exact = exact_forward(c), naive = naive_forward(c);
    for (const delta_rule::Implementation& implementation : implementations_for(c)) {
      SCOPED_TRACE(std::string(implementation.name) + "; " + describe(x));
      const Outputs out = forward(implementation, c);
      compare("o", out.o, naive.o, exact.o);
      compare("final_state", out.final_state, naive.final_state, exact.final_state);
    }
  }

  void TearDown() override { std::printf("  up to %.2f times the naive error\n", worst_); }

 private:
  void compare(const char* name, const Buffer& x, const Buffer& naive, const Buffer& exact) {
    const double yardstick = rms_ratio(naive.values(), exact.values());
    ASSERT_TRUE(
        close(x.values(), exact.values(), x.sizes(), 2 * yardstick, name, "naive error " + std::to_string(yardstick)));
    worst_ = std::max(worst_, rms_ratio(x.values(), exact.values()) / yardstick);
  }

  double worst_ = 0;
};

Description call(DType dtype, std::int64_t T, double log_decay) {
  Description x;
  x.dtype = dtype;
  x.T = T;
  x.H = x.HV = 2;
  x.K = x.V = 128;
  x.log_decay = log_decay;
  x.final_gradient = false;
  return x;
}

TEST_F(CudaNaiveAccuracy, LengthsAndDecays) {
  for (const DType dtype : {DType::bf16, DType::f16}) {
    for (const std::int64_t T : {64, 127, 1000, 2048}) {
      for (const double log_decay : {0.001, 0.01, 0.1, 1.0}) check(call(dtype, T, log_decay));
    }
  }
}

TEST_F(CudaNaiveAccuracy, RulesConventionsAndKeys) {
  for (const DType dtype : {DType::bf16, DType::f16}) {
    for (const Rule rule : {Rule::comba, Rule::gated_delta}) {
      for (const Convention convention : {Convention::paper, Convention::fla}) {
        for (const bool identical_keys : {false, true}) {
          Description x = call(dtype, 500, 0.02);
          x.rule = rule;
          x.convention = convention;
          x.identical_keys = identical_keys;
          check(x);
        }
      }
    }
  }
}

}  // namespace
}  // namespace comba::test
