// The long tests of the GPU lean on exact_forward: it is the definition, and errors beside it are seen.
#include "operators/exact_forward.h"

#include <gtest/gtest.h>

namespace comba::test {
namespace {

TEST(ExactForward, IsTheDefinitionBitForBit) {
  for (std::uint64_t seed = 700; seed < 760; ++seed) {
    Case c(random_description(seed));
    const Outputs exact = exact_forward(c), expected = forward(reference(), c);
    EXPECT_TRUE(exact.o.same_bits(expected.o)) << describe(c.description);
    EXPECT_TRUE(exact.final_state.same_bits(expected.final_state)) << describe(c.description);
  }
}

TEST(ExactForward, SeesTheInputsAsTheyAreRounded) {
  Description x;
  x.dtype = DType::bf16;
  Case c(x);
  const Outputs rounded = forward(reference(), c), exact = exact_forward(c);
  ASSERT_EQ(exact.o.dtype(), DType::f32);
  for (std::int64_t i = 0; i < exact.o.count(); ++i) {
    Buffer one(DType::bf16, {1});
    one.set(0, exact.o.at(i));
    ASSERT_EQ(one.at(0), rounded.o.at(i));
  }
}

/// An output that is wrong by one part in a hundred, in the RMS of all or in one chunk of one head alone, is refused.
TEST(ExactForward, ErrorsOfOnePercentAreSeen) {
  Description x;
  x.dtype = DType::bf16;
  x.T = 256;
  Case c(x);
  const Outputs exact = exact_forward(c);
  std::mt19937_64 random(1);
  std::normal_distribution<double> normal;
  Buffer everywhere = exact.o, in_one_chunk = exact.o;
  for (std::int64_t i = 0; i < exact.o.count(); ++i) {
    const std::int64_t token = i / (x.HV * x.V);
    const bool chunk = token >= 192 && i / x.V % x.HV == 1;
    everywhere.set(i, exact.o.at(i) * (1 + 0.01 * normal(random)));
    if (chunk) in_one_chunk.set(i, exact.o.at(i) * (1 + 0.03 * normal(random)));
  }
  for (const Buffer* wrong : {&everywhere, &in_one_chunk}) {
    EXPECT_FALSE(close(wrong->values(), exact.o.values(), exact.o.sizes(), tolerance("o", DType::bf16), "o", ""));
  }
}

}  // namespace
}  // namespace comba::test
