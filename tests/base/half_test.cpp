#include "base/half.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

namespace comba {
namespace {

/// The double value of 16 bits with the given exponent and mantissa widths: the definition of the formats.
double decode(std::uint16_t bits, int exponent_bits, int mantissa_bits) {
  const int bias = (1 << (exponent_bits - 1)) - 1;
  const int exponent = (bits >> mantissa_bits) & ((1 << exponent_bits) - 1);
  const int mantissa = bits & ((1 << mantissa_bits) - 1);
  const double sign = bits & 0x8000 ? -1 : 1;
  if (exponent == (1 << exponent_bits) - 1) {
    return mantissa ? std::numeric_limits<double>::quiet_NaN() : sign * std::numeric_limits<double>::infinity();
  }
  if (exponent == 0) return sign * std::ldexp(mantissa, 1 - bias - mantissa_bits);
  return sign * std::ldexp((1 << mantissa_bits) + mantissa, exponent - bias - mantissa_bits);
}

template <class Half>
class HalfTest : public testing::Test {};

struct Bf16Format {
  using Type = bf16;
  static constexpr int kExponentBits = 8, kMantissaBits = 7;
};
struct F16Format {
  using Type = f16;
  static constexpr int kExponentBits = 5, kMantissaBits = 10;
};
using Formats = testing::Types<Bf16Format, F16Format>;
TYPED_TEST_SUITE(HalfTest, Formats);

TYPED_TEST(HalfTest, EveryPatternReadsAsItsDefinitionAndComesBack) {
  for (int bits = 0; bits < 0x10000; ++bits) {
    const typename TypeParam::Type half{static_cast<std::uint16_t>(bits)};
    const double expected = decode(half.bits, TypeParam::kExponentBits, TypeParam::kMantissaBits);
    const float value = to_float(half);
    if (std::isnan(expected)) {
      ASSERT_TRUE(std::isnan(value)) << bits;
      ASSERT_TRUE(std::isnan(to_float(from_float<typename TypeParam::Type>(value)))) << bits;
      continue;
    }
    ASSERT_EQ(value, expected) << bits;
    ASSERT_EQ(from_float<typename TypeParam::Type>(value).bits, half.bits);
  }
}

/// Between neighbours the nearer one is taken; half way, the one with an even pattern; beyond the largest, infinity.
TYPED_TEST(HalfTest, RoundsToNearestEven) {
  using Half = typename TypeParam::Type;
  for (int bits = 0; bits < 0x7fff; ++bits) {
    const double low = decode(bits, TypeParam::kExponentBits, TypeParam::kMantissaBits);
    double high = decode(bits + 1, TypeParam::kExponentBits, TypeParam::kMantissaBits);
    if (std::isnan(low) || std::isnan(high) || std::isinf(low)) continue;
    if (std::isinf(high)) high = std::ldexp(1.0, 1 << (TypeParam::kExponentBits - 1));
    const float middle = static_cast<float>((low + high) / 2);
    for (const double sign : {1.0, -1.0}) {
      const int sign_bit = sign < 0 ? 0x8000 : 0;
      const int even = bits % 2 == 0 ? bits : bits + 1;
      ASSERT_EQ(from_float<Half>(static_cast<float>(sign * middle)).bits, sign_bit | even) << bits;
      const float below = std::nextafter(middle, 0.0f), above = std::nextafter(middle, HUGE_VALF);
      ASSERT_EQ(from_float<Half>(static_cast<float>(sign * below)).bits, sign_bit | bits) << bits;
      ASSERT_EQ(from_float<Half>(static_cast<float>(sign * above)).bits, sign_bit | (bits + 1)) << bits;
    }
  }
}

}  // namespace
}  // namespace comba
