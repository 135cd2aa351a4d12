// Vectorised pieces the chunked code is built from. Included once per instruction set.
#if defined(COMBA_CPU_BLOCK_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef COMBA_CPU_BLOCK_INL_H_
#undef COMBA_CPU_BLOCK_INL_H_
#else
#define COMBA_CPU_BLOCK_INL_H_
#endif

#include <hwy/highway.h>

#include <algorithm>
#include <cstdint>

#include "operators/delta_rule/cpu/layout.h"

HWY_BEFORE_NAMESPACE();
namespace comba::delta_rule::cpu {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;
using Floats = hn::CappedTag<float, kAlign>;
using FloatVector = hn::Vec<Floats>;
constexpr Floats kFloats;
HWY_INLINE std::int64_t lanes() { return static_cast<std::int64_t>(hn::Lanes(kFloats)); }

// Registers of one tile of a matrix product: kTileRows x kTileVectors accumulators, one row of B, one element of A.
#if HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_NEON
constexpr int kTileRows = 6, kTileVectors = 4;  // 32 vector registers
#else
constexpr int kTileRows = 6, kTileVectors = 2;  // 16
#endif

/// What becomes of the old content of C.
enum class Into { kSet, kAdd, kSubtract };

/// The left factor of a product: element (m, k) at data[m * row_stride + k * column_stride], one stride being 1.
struct Left {
  const float* data;
  std::int64_t row_stride, column_stride;
};
HWY_INLINE Left plain(const Matrix& a, std::int64_t row = 0, std::int64_t column = 0) {
  return {a.row(row) + column, a.stride, 1};
}
HWY_INLINE Left transposed(const Matrix& a, std::int64_t row = 0, std::int64_t column = 0) {
  return {a.row(row) + column, 1, a.stride};
}

template <int kRows, int kVectors, bool kTransposed>
HWY_INLINE void multiply_tile(std::int64_t depth, const Left& a, const float* HWY_RESTRICT b, std::int64_t b_stride,
                              float* HWY_RESTRICT c, std::int64_t c_stride, Into into, float keep) {
  const std::int64_t n = lanes();
  FloatVector sum[kRows][kVectors];
  for (int m = 0; m < kRows; ++m) {
    for (int v = 0; v < kVectors; ++v) sum[m][v] = hn::Zero(kFloats);
  }
  for (std::int64_t k = 0; k < depth; ++k) {
    FloatVector row[kVectors];
    for (int v = 0; v < kVectors; ++v) row[v] = hn::Load(kFloats, b + k * b_stride + v * n);
    for (int m = 0; m < kRows; ++m) {
      const float* element = kTransposed ? a.data + k * a.column_stride + m : a.data + m * a.row_stride + k;
      const FloatVector factor = hn::Set(kFloats, *element);
      for (int v = 0; v < kVectors; ++v) sum[m][v] = hn::MulAdd(factor, row[v], sum[m][v]);
    }
  }
  const FloatVector kept = hn::Set(kFloats, keep);
  for (int m = 0; m < kRows; ++m) {
    for (int v = 0; v < kVectors; ++v) {
      float* out = c + m * c_stride + v * n;
      FloatVector value = sum[m][v];
      if (into == Into::kAdd) value = hn::MulAdd(kept, hn::Load(kFloats, out), value);
      if (into == Into::kSubtract) value = hn::NegMulAdd(kept, value, hn::Load(kFloats, out));
      hn::Store(value, kFloats, out);
    }
  }
}

template <int kVectors, bool kTransposed>
HWY_INLINE void multiply_columns(std::int64_t rows, std::int64_t depth, Left a, const float* b, std::int64_t b_stride,
                                 float* c, std::int64_t c_stride, Into into, float keep) {
  const auto tile = [&](auto count) {
    multiply_tile<count.value, kVectors, kTransposed>(depth, a, b, b_stride, c, c_stride, into, keep);
    a.data += count.value * a.row_stride;
    c += count.value * c_stride;
    rows -= count.value;
  };
  while (rows >= kTileRows) tile(std::integral_constant<int, kTileRows>());
  if (rows >= 4) tile(std::integral_constant<int, 4>());
  if (rows >= 2) tile(std::integral_constant<int, 2>());
  if (rows >= 1) tile(std::integral_constant<int, 1>());
}

template <bool kTransposed>
HWY_INLINE void multiply_oriented(std::int64_t rows, std::int64_t columns, std::int64_t depth, const Left& a,
                                  const float* b, std::int64_t b_stride, float* c, std::int64_t c_stride, Into into,
                                  float keep) {
  const std::int64_t n = lanes();
  std::int64_t column = 0;
  const auto panel = [&](auto count) {
    multiply_columns<count.value, kTransposed>(rows, depth, a, b + column, b_stride, c + column, c_stride, into, keep);
    column += count.value * n;
  };
  while (columns - column > (kTileVectors - 1) * n) panel(std::integral_constant<int, kTileVectors>());
  if (columns - column > n) panel(std::integral_constant<int, 2>());
  if (columns - column > 0) panel(std::integral_constant<int, 1>());
}

/// C [rows, columns] = A B, keep C + A B, or C - keep A B, with A [rows, depth] and B [depth, columns].
/// Columns are rounded up to whole vectors: rows of B and C must be padded, B's padding with finite numbers.
/// Every element is summed in the order of `depth`, whatever the tile it falls into.
inline HWY_NOINLINE void multiply(std::int64_t rows, std::int64_t columns, std::int64_t depth, const Left& a,
                                  const float* b, std::int64_t b_stride, float* c, std::int64_t c_stride, Into into,
                                  float keep = 1) {
  if (a.column_stride == 1) {
    multiply_oriented<false>(rows, columns, depth, a, b, b_stride, c, c_stride, into, keep);
  } else {
    multiply_oriented<true>(rows, columns, depth, a, b, b_stride, c, c_stride, into, keep);
  }
}

HWY_INLINE void multiply(std::int64_t rows, std::int64_t columns, std::int64_t depth, const Left& a, const Matrix& b,
                         const Matrix& c, Into into, float keep = 1) {
  multiply(rows, columns, depth, a, b.data, b.stride, c.data, c.stride, into, keep);
}

/// The blocks on and below the diagonal of C [rows, rows] = A [rows, depth] B [depth, rows]; what lies above is
/// garbage.
HWY_INLINE void multiply_to_lower(std::int64_t rows, std::int64_t depth, const Matrix& a, const Matrix& b,
                                  const Matrix& c) {
  for (std::int64_t i = 0; i < rows; i += kBlock) {
    const std::int64_t height = std::min(kBlock, rows - i);
    multiply(height, i + height, depth, plain(a, i), b.data, b.stride, c.row(i), c.stride, Into::kSet);
  }
}

/// C [rows, columns] (+)= L B with L [rows, rows] lower triangular, zero above the diagonal inside its diagonal blocks.
HWY_INLINE void multiply_lower(std::int64_t rows, std::int64_t columns, const Matrix& lower, const Matrix& b,
                               const Matrix& c, Into into) {
  for (std::int64_t i = 0; i < rows; i += kBlock) {
    const std::int64_t height = std::min(kBlock, rows - i);
    multiply(height, columns, i + height, plain(lower, i), b.data, b.stride, c.row(i), c.stride, into);
  }
}

/// C [rows, columns] (+)= L^T B.
HWY_INLINE void multiply_lower_transposed(std::int64_t rows, std::int64_t columns, const Matrix& lower, const Matrix& b,
                                          const Matrix& c, Into into) {
  for (std::int64_t i = 0; i < rows; i += kBlock) {
    const std::int64_t height = std::min(kBlock, rows - i);
    multiply(height, columns, rows - i, transposed(lower, i, i), b.row(i), b.stride, c.row(i), c.stride, into);
  }
}

/// Inside one diagonal block: x_i = scale_i (x_i - sum_{j<i} L_ij x_j), from the top. When `unscaled` is given it
/// receives the brackets.
HWY_INLINE void solve_block(std::int64_t rows, std::int64_t columns, const Left& lower, const float* scale, float* x,
                            std::int64_t stride, float* unscaled) {
  for (std::int64_t v = 0; v < columns; v += lanes()) {
    for (std::int64_t i = 0; i < rows; ++i) {
      FloatVector value = hn::Load(kFloats, x + i * stride + v);
      for (std::int64_t j = 0; j < i; ++j) {
        const FloatVector factor = hn::Set(kFloats, lower.data[i * lower.row_stride + j * lower.column_stride]);
        value = hn::NegMulAdd(factor, hn::Load(kFloats, x + j * stride + v), value);
      }
      if (unscaled) hn::Store(value, kFloats, unscaled + i * stride + v);
      hn::Store(hn::Mul(value, hn::Set(kFloats, scale[i])), kFloats, x + i * stride + v);
    }
  }
}

/// Inside one diagonal block: x_i = x_i - sum_{j>i} scale_j L_ji x_j, from the bottom.
HWY_INLINE void solve_block_transposed(std::int64_t rows, std::int64_t columns, const Left& lower, const float* scale,
                                       float* x, std::int64_t stride) {
  for (std::int64_t v = 0; v < columns; v += lanes()) {
    for (std::int64_t i = rows; i-- > 0;) {
      FloatVector value = hn::Load(kFloats, x + i * stride + v);
      for (std::int64_t j = i + 1; j < rows; ++j) {
        const float factor = scale[j] * lower.data[j * lower.row_stride + i * lower.column_stride];
        value = hn::NegMulAdd(hn::Set(kFloats, factor), hn::Load(kFloats, x + j * stride + v), value);
      }
      hn::Store(value, kFloats, x + i * stride + v);
    }
  }
}

#if HWY_TARGET == HWY_SCALAR

/// One tile of a transposition, [4, 4] at row i and column j of X; rows beyond `rows` count as zero.
HWY_INLINE void transpose_tile(std::int64_t rows, std::int64_t i, std::int64_t j, const Matrix& x, const Matrix& y) {
  for (std::int64_t r = 0; r < 4; ++r) {
    for (std::int64_t c = 0; c < 4; ++c) y.row(j + c)[i + r] = i + r < rows ? x.row(i + r)[j + c] : 0;
  }
}

#else

HWY_INLINE void transpose_tile(std::int64_t rows, std::int64_t i, std::int64_t j, const Matrix& x, const Matrix& y) {
  const hn::FixedTag<float, 4> d;
  hn::Vec<decltype(d)> row[4];
  for (std::int64_t r = 0; r < 4; ++r) row[r] = i + r < rows ? hn::Load(d, x.row(i + r) + j) : hn::Zero(d);
  const auto low01 = hn::InterleaveLower(d, row[0], row[1]), high01 = hn::InterleaveUpper(d, row[0], row[1]);
  const auto low23 = hn::InterleaveLower(d, row[2], row[3]), high23 = hn::InterleaveUpper(d, row[2], row[3]);
  hn::Store(hn::ConcatLowerLower(d, low23, low01), d, y.row(j) + i);
  hn::Store(hn::ConcatUpperUpper(d, low23, low01), d, y.row(j + 1) + i);
  hn::Store(hn::ConcatLowerLower(d, high23, high01), d, y.row(j + 2) + i);
  hn::Store(hn::ConcatUpperUpper(d, high23, high01), d, y.row(j + 3) + i);
}

#endif

/// Y [columns, rows] = X^T with X [rows, columns]. Rows of Y are zero from `rows` up to a whole cache line; Y has room
/// for columns rounded up to a multiple of 4.
inline HWY_NOINLINE void transpose(std::int64_t rows, std::int64_t columns, const Matrix& x, const Matrix& y) {
  // Sixteen rows at a time: the lines read are used up, and each line of Y is written whole.
  for (std::int64_t line = 0; line < rows; line += kAlign) {
    for (std::int64_t j = 0; j < columns; j += 4) {
      for (std::int64_t i = line; i < line + kAlign; i += 4) transpose_tile(rows, i, j, x, y);
    }
  }
}

/// y = factor x over `count` floats, rounded up to whole vectors.
HWY_INLINE void scale_row(std::int64_t count, float factor, const float* x, float* y) {
  const FloatVector f = hn::Set(kFloats, factor);
  for (std::int64_t i = 0; i < count; i += lanes()) hn::Store(hn::Mul(f, hn::Load(kFloats, x + i)), kFloats, y + i);
}

/// y += factor x.
HWY_INLINE void add_scaled_row(std::int64_t count, float factor, const float* x, float* y) {
  const FloatVector f = hn::Set(kFloats, factor);
  for (std::int64_t i = 0; i < count; i += lanes()) {
    hn::Store(hn::MulAdd(f, hn::Load(kFloats, x + i), hn::Load(kFloats, y + i)), kFloats, y + i);
  }
}

/// <x, y> over `count` floats, rounded up to whole vectors: the padding of one of them must be zero, of both finite.
HWY_INLINE float dot(std::int64_t count, const float* x, const float* y) {
  FloatVector sum = hn::Zero(kFloats);
  for (std::int64_t i = 0; i < count; i += lanes()) {
    sum = hn::MulAdd(hn::Load(kFloats, x + i), hn::Load(kFloats, y + i), sum);
  }
  return hn::GetLane(hn::SumOfLanes(kFloats, sum));
}

/// e^x for x <= 0 (positive rounding noise counts as 0; below -87 the result is 0; NaN stays NaN). Cody-Waite
/// reduction and the polynomial of degree 6 of (e^r - 1 - r) / r^2 on |r| <= ln 2 / 2 (Taylor: error below 2^-26).
HWY_INLINE FloatVector exp_nonpositive(FloatVector x) {
  const hn::RebindToSigned<Floats> ints;
  const FloatVector zero = hn::Zero(kFloats);
  x = hn::IfThenElse(hn::Gt(x, zero), zero, x);
  const FloatVector n = hn::Round(hn::Mul(x, hn::Set(kFloats, 1.44269504088896341f)));
  FloatVector r = hn::NegMulAdd(n, hn::Set(kFloats, 0.693145751953125f), x);  // ln 2, its leading 16 bits
  r = hn::NegMulAdd(n, hn::Set(kFloats, 1.42860682030941723e-6f), r);         // and the rest
  FloatVector y = hn::Set(kFloats, 1.0f / 5040);
  for (const float c : {1.0f / 720, 1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1.0f, 1.0f}) {
    y = hn::MulAdd(y, r, hn::Set(kFloats, c));
  }
  const auto exponent = hn::ShiftLeft<23>(hn::Add(hn::ConvertTo(ints, n), hn::Set(ints, 127)));
  y = hn::Mul(y, hn::BitCast(kFloats, exponent));
  return hn::IfThenElse(hn::Lt(x, hn::Set(kFloats, -87.0f)), zero, y);
}

}  // namespace HWY_NAMESPACE
}  // namespace comba::delta_rule::cpu
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
