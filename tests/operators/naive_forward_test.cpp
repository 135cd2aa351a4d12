// The yardstick of half precision is the definition but for rounding.
#include "operators/naive_forward.h"

#include <gtest/gtest.h>

#include "operators/exact_forward.h"

namespace comba::test {
namespace {

double error(const Outputs& x, const Outputs& exact) { return rms_ratio(x.o.values(), exact.o.values()); }

TEST(NaiveForward, IsTheDefinitionInSinglePrecision) {
  for (std::uint64_t seed = 800; seed < 860; ++seed) {
    Case c(random_description(seed));
    expect_close(naive_forward(c), exact_forward(c), c.description);
  }
}

/// Rounding to 8 bits costs about 8 times what rounding to 11 bits does, and neither is free.
TEST(NaiveForward, RoundsToTheDtypeOfTheCase) {
  Description x;
  x.T = 300;
  x.K = x.V = 64;
  x.dtype = DType::bf16;
  Case bf16(x);
  x.dtype = DType::f16;
  Case f16(x);
  const double coarse = error(naive_forward(bf16), exact_forward(bf16));
  const double fine = error(naive_forward(f16), exact_forward(f16));
  EXPECT_GT(coarse, 0.0016);  // the output's own rounding
  EXPECT_LT(coarse, 0.01);
  EXPECT_GT(coarse, 6 * fine);
  EXPECT_LT(coarse, 10 * fine);
}

}  // namespace
}  // namespace comba::test
