// The vectorised pieces, for each instruction set this processor has.
#include "operators/delta_rule/cpu/simd.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "operators/block_test.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <cmath>
#include <vector>

#include "operators/delta_rule/cpu/block-inl.h"

HWY_BEFORE_NAMESPACE();
namespace comba::delta_rule::cpu {
namespace HWY_NAMESPACE {

/// e^x of `count` floats, a multiple of 16.
void exp_all(const float* x, float* y, std::int64_t count) {
  for (std::int64_t i = 0; i < count; i += lanes()) {
    hn::StoreU(exp_nonpositive(hn::LoadU(kFloats, x + i)), kFloats, y + i);
  }
}

void multiply_plain(std::int64_t rows, std::int64_t columns, std::int64_t depth, const Matrix& a, const Matrix& b,
                    const Matrix& c) {
  multiply(rows, columns, depth, plain(a), b, c, Into::kSubtract, 0.5f);
}

void multiply_transposed(std::int64_t rows, std::int64_t columns, std::int64_t depth, const Matrix& a, const Matrix& b,
                         const Matrix& c) {
  multiply(rows, columns, depth, transposed(a), b, c, Into::kAdd, 0.5f);
}

void transpose_matrix(std::int64_t rows, std::int64_t columns, const Matrix& x, const Matrix& y) {
  transpose(rows, columns, x, y);
}

}  // namespace HWY_NAMESPACE
}  // namespace comba::delta_rule::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <gtest/gtest.h>

#include <limits>
#include <random>
#include <string>

namespace comba::delta_rule::cpu {
namespace {

struct Pieces {
  std::string name;
  void (*exp_all)(const float*, float*, std::int64_t);
  void (*multiply_plain)(std::int64_t, std::int64_t, std::int64_t, const Matrix&, const Matrix&, const Matrix&);
  void (*multiply_transposed)(std::int64_t, std::int64_t, std::int64_t, const Matrix&, const Matrix&, const Matrix&);
  void (*transpose)(std::int64_t, std::int64_t, const Matrix&, const Matrix&);
};

std::vector<Pieces> all_pieces() {
  std::vector<Pieces> list;
#if HWY_TARGETS & HWY_AVX3
  if (__builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw")) {
    list.push_back(
        {"avx512", N_AVX3::exp_all, N_AVX3::multiply_plain, N_AVX3::multiply_transposed, N_AVX3::transpose_matrix});
  }
#endif
#if HWY_TARGETS & HWY_AVX2
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    list.push_back(
        {"avx2", N_AVX2::exp_all, N_AVX2::multiply_plain, N_AVX2::multiply_transposed, N_AVX2::transpose_matrix});
  }
#endif
  list.push_back({"baseline", HWY_NAMESPACE::exp_all, HWY_NAMESPACE::multiply_plain, HWY_NAMESPACE::multiply_transposed,
                  HWY_NAMESPACE::transpose_matrix});
  return list;
}

class Block : public testing::TestWithParam<Pieces> {};

/// A matrix with memory of its own, aligned to a cache line, full of `value`.
struct OwnedMatrix : Matrix {
  OwnedMatrix(std::int64_t rows, std::int64_t columns, float value) : memory((rows + 1) * row_length(columns), value) {
    stride = row_length(columns);
    const auto address = reinterpret_cast<std::uintptr_t>(memory.data());
    data = memory.data() + (64 - address % 64) % 64 / sizeof(float);
  }
  std::vector<float> memory;
};

void randomise(std::mt19937& random, std::int64_t rows, std::int64_t columns, const Matrix& x) {
  std::normal_distribution<float> normal;
  for (std::int64_t i = 0; i < rows; ++i) {
    for (std::int64_t j = 0; j < columns; ++j) x.row(i)[j] = normal(random);
  }
}

TEST_P(Block, ExpOverAllExponents) {
  std::vector<float> x;
  for (int exponent = -149; exponent <= 6; ++exponent) {
    for (int step = 0; step < 256; ++step) x.push_back(-std::ldexp(1 + step / 256.0f, exponent));
  }
  std::vector<float> y(x.size());
  GetParam().exp_all(x.data(), y.data(), static_cast<std::int64_t>(x.size()));
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double expected = std::exp(static_cast<double>(x[i]));
    if (x[i] < -87) {
      ASSERT_EQ(y[i], 0) << x[i];
    } else {
      ASSERT_NEAR(y[i], expected, 1.5e-7 * expected) << x[i];
    }
  }
}

TEST_P(Block, ExpOfSpecialValues) {
  const float infinity = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  std::vector<float> x(16, 0), y(16);
  x[1] = 1e-3f;  // rounding noise above zero counts as zero
  x[2] = -infinity;
  x[3] = nan;
  x[4] = -std::numeric_limits<float>::max();
  x[5] = -0.0f;
  GetParam().exp_all(x.data(), y.data(), 16);
  EXPECT_EQ(y[0], 1);
  EXPECT_EQ(y[1], 1);
  EXPECT_EQ(y[2], 0);
  EXPECT_TRUE(std::isnan(y[3]));
  EXPECT_EQ(y[4], 0);
  EXPECT_EQ(y[5], 1);
}

TEST_P(Block, ProductsOfEveryShape) {
  std::mt19937 random(1);
  for (const std::int64_t rows : {1, 2, 3, 4, 5, 6, 7, 12, 16, 23}) {
    for (const std::int64_t columns : {1, 15, 16, 17, 33, 48, 64, 100}) {
      for (const std::int64_t depth : {1, 2, 17, 64}) {
        OwnedMatrix a(rows, depth, 0), at(depth, rows, 0), b(depth, columns, 0), c(rows, columns, 0),
            d(rows, columns, 0);
        randomise(random, rows, depth, a);
        randomise(random, depth, columns, b);
        randomise(random, rows, columns, c);
        for (std::int64_t i = 0; i < rows; ++i) {
          for (std::int64_t k = 0; k < depth; ++k) at.row(k)[i] = a.row(i)[k];
          for (std::int64_t j = 0; j < columns; ++j) d.row(i)[j] = c.row(i)[j];
        }
        const std::vector<float> old = c.memory;
        GetParam().multiply_plain(rows, columns, depth, a, b, c);
        GetParam().multiply_transposed(rows, columns, depth, at, b, d);
        for (std::int64_t i = 0; i < rows; ++i) {
          for (std::int64_t j = 0; j < columns; ++j) {
            double sum = 0;
            for (std::int64_t k = 0; k < depth; ++k) sum += static_cast<double>(a.row(i)[k]) * b.row(k)[j];
            const double before = old[c.row(i) + j - c.memory.data()];
            ASSERT_NEAR(c.row(i)[j], before - 0.5 * sum, 2e-5) << rows << " " << columns << " " << depth;
            ASSERT_NEAR(d.row(i)[j], 0.5 * before + sum, 2e-5) << rows << " " << columns << " " << depth;
          }
        }
      }
    }
  }
}

TEST_P(Block, TransposeOfEveryShape) {
  std::mt19937 random(2);
  for (const std::int64_t rows : {1, 3, 4, 15, 16, 17, 64}) {
    for (const std::int64_t columns : {1, 4, 5, 30, 64}) {
      OwnedMatrix x(rows, columns, 0), y(round_up(columns, 4), rows, std::numeric_limits<float>::quiet_NaN());
      randomise(random, rows, columns, x);
      GetParam().transpose(rows, columns, x, y);
      for (std::int64_t j = 0; j < columns; ++j) {
        for (std::int64_t i = 0; i < round_up(rows, kAlign); ++i) {
          ASSERT_EQ(y.row(j)[i], i < rows ? x.row(i)[j] : 0) << rows << " " << columns;
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(InstructionSets, Block, testing::ValuesIn(all_pieces()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace comba::delta_rule::cpu
#endif  // HWY_ONCE
