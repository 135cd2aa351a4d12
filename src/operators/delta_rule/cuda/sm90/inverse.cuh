#pragma once

#include "operators/delta_rule/cuda/sm90/tiles.cuh"

/// The inverse of I + A for a strictly lower triangular A of a chunk.
///
/// Blocks of 8 are inverted by substitution in fp32, then joined three times:
///
///     (I + A)^-1 = [ M11 0 ; -M22 A21 M11  M22 ]        of blocks of 8, of 16, of 32
///
/// The products run in tf32: M is rounded to 16 bits afterwards. They go through registers from the first factor to the
/// result, because the accumulators of (A21 M11)^T are where the right operand A21 M11 of the next product belongs, if
/// both count the columns of a step of 8 as 0 2 4 6 1 3 5 7.
namespace comba::delta_rule::cuda::sm90 {

constexpr int kInverseStride = kChunk + 4;  ///< floats of a row of A: rows begin 4 banks apart

using InverseRow = float[kInverseStride];

/// The warp's number in its warpgroup, known to be the same for all its lanes.
__device__ inline int warp_of_group() { return __shfl_sync(~0u, static_cast<int>(threadIdx.x) % kWarpGroup / 32, 0); }

/// Rounded to the 10 bits of tf32, of which the product drops the rest. (cvt.rna.tf32 costs three instructions.)
__device__ inline unsigned as_tf32(float x) { return __float_as_uint(x) + 0x1000; }

/// C (16 x 8) += A (16 x 8) B (8 x 8) of a warp, in tf32.
__device__ inline void multiply_tf32(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, "
      "%2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/// The right operand that begins at row `k` and column `n` of a.
__device__ inline void load_right(const InverseRow* a, int k, int n, unsigned (&to)[2]) {
  const int lane = threadIdx.x % 32, row = k + lane % 4 * 2, column = n + lane / 4;
  to[0] = as_tf32(a[row][column]);
  to[1] = as_tf32(a[row + 1][column]);
}

/// Two neighbours, as they follow each other in the left operand's row or the right operand's column.
__device__ inline void load_pair(const float* from, unsigned& first, unsigned& second) {
  const float2 pair = *reinterpret_cast<const float2*>(from);
  first = as_tf32(pair.x);
  second = as_tf32(pair.y);
}

/// A warp inverts two neighbouring blocks of 8 and joins them, in place. A lane has a column of one of the two in
/// registers (the upper lanes repeat it); the lanes of a block read the same element of A.
__device__ inline void invert_block(InverseRow* a, int first) {
  constexpr int kBlock = 8;
  const int lane = threadIdx.x % 32, begin = first + lane / kBlock % 2 * kBlock, column = lane % kBlock;
  float m[kBlock];
  m[0] = column == 0;
#pragma unroll
  for (int i = 1; i < kBlock; ++i) {
    float sum[2] = {static_cast<float>(column == i), 0};
#pragma unroll
    for (int j = 0; j < i; j += 4) {
      const float4 four = *reinterpret_cast<const float4*>(&a[begin + i][begin + j]);
      const float at[4] = {four.x, four.y, four.z, four.w};
#pragma unroll
      for (int k = j; k < i && k < j + 4; ++k) sum[k % 2] = fmaf(-at[k - j], m[k], sum[k % 2]);
    }
    m[i] = sum[0] + sum[1];
  }
  __syncwarp();
  if (lane < 2 * kBlock) {
#pragma unroll
    for (int i = 0; i < kBlock; ++i) a[begin + i][begin + column] = m[i];
  }
  __syncwarp();
  const int row = lane / 4, pair = lane % 4 * 2, second = first + kBlock;
  unsigned left[4] = {}, right[2];
  left[0] = as_tf32(a[first + pair][first + row]), left[2] = as_tf32(a[first + pair + 1][first + row]);
  load_pair(&a[second + row][first + pair], right[0], right[1]);
  float product[4] = {}, joined[4] = {};
  multiply_tf32(product, left, right);  // (A21 M11)^T
  load_pair(&a[second + row][second + pair], left[0], left[2]);
  right[0] = as_tf32(product[0]), right[1] = as_tf32(product[1]);
  multiply_tf32(joined, left, right);
  __syncwarp();
  *reinterpret_cast<float2*>(&a[second + row][first + pair]) = make_float2(-joined[0], -joined[1]);
}

/// A warp computes 16 rows and 16 columns, which begin at `rows` and `columns`, of M22 A21 M11, for two neighbouring
/// blocks of kSize at `first`. joined[n] are accumulators of 8 columns.
template <int kSize>
__device__ void join(const InverseRow* a, int first, int rows, int columns, float (&joined)[2][4]) {
  const int row = threadIdx.x % 32 / 4, pair = threadIdx.x % 4 * 2, second = first + kSize;
  float product[kSize / 8][4] = {};  // 16 rows of (A21 M11)^T; the triangles tell which of it is needed
#pragma unroll
  for (int k = 0; k < kSize; k += 8) {
    if (k < columns) continue;
    unsigned left[4], right[2];
#pragma unroll
    for (int i = 0; i < 4; ++i) left[i] = as_tf32(a[first + k + pair + i / 2][first + columns + row + i % 2 * 8]);
#pragma unroll
    for (int n = 0; n < kSize / 8; ++n) {
      if (8 * n >= rows + 16) continue;
      load_pair(&a[second + 8 * n + row][first + k + pair], right[0], right[1]);
      multiply_tf32(product[n], left, right);
    }
  }
#pragma unroll
  for (int k = 0; k < kSize; k += 8) {
    if (k >= rows + 16) continue;
    unsigned left[4];
    load_pair(&a[second + rows + row][second + k + pair], left[0], left[2]);
    load_pair(&a[second + rows + row + 8][second + k + pair], left[1], left[3]);
#pragma unroll
    for (int n = 0; n < 2; ++n) {
      const unsigned right[2] = {as_tf32(product[k / 8][2 * n]), as_tf32(product[k / 8][2 * n + 1])};
      multiply_tf32(joined[n], left, right);
    }
  }
}

/// Puts -joined in the place of A21.
template <int kSize>
__device__ void write_joined(InverseRow* a, int first, int rows, int columns, const float (&joined)[2][4]) {
  const int row = first + kSize + rows + threadIdx.x % 32 / 4, column = first + columns + threadIdx.x % 4 * 2;
#pragma unroll
  for (int n = 0; n < 2; ++n) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      *reinterpret_cast<float2*>(&a[row + 8 * half][column + 8 * n]) =
          make_float2(-joined[n][2 * half], -joined[n][2 * half + 1]);
    }
  }
}

/// The inverse of I + `a` in the place of a, for a warpgroup, which has just met and meets again at named barrier
/// `barrier`. Blocks of 16 right of the diagonal are neither read nor written.
__device__ inline void invert(InverseRow* a, int barrier) {
  const int warp = warp_of_group();
  invert_block(a, 16 * warp);
  barrier_wait(barrier, kWarpGroup);
  if (warp % 2 == 0) {
    float joined[2][4] = {};
    join<16>(a, 16 * warp, 0, 0, joined);
    __syncwarp();
    write_joined<16>(a, 16 * warp, 0, 0, joined);
  }
  barrier_wait(barrier, kWarpGroup);
  float joined[2][4] = {};
  const int rows = warp / 2 * 16, columns = warp % 2 * 16;
  join<32>(a, 0, rows, columns, joined);
  barrier_wait(barrier, kWarpGroup);  // everyone has read A21
  write_joined<32>(a, 0, rows, columns, joined);
  barrier_wait(barrier, kWarpGroup);
}

/// A warpgroup writes M - I, rounded, as a tile to the workspace.
template <class Element>
__device__ void write_inverse(const InverseRow* m, Element* inverse) {
#pragma unroll
  for (int piece = threadIdx.x % kWarpGroup; piece < kChunk * kChunk / 8; piece += kWarpGroup) {
    const int row = piece / 8, column = piece % 8 * 8;
    const float4 low = *reinterpret_cast<const float4*>(&m[row][column]);
    const float4 high = *reinterpret_cast<const float4*>(&m[row][column + 4]);
    const auto pair = [&](int i, float first, float second) {
      return pack<Element>(column + i >= row ? 0 : first, column + i + 1 >= row ? 0 : second);
    };
    *reinterpret_cast<uint4*>(reinterpret_cast<char*>(inverse) + piece_offset<kChunk>(row, piece % 8)) =
        make_uint4(pair(0, low.x, low.y), pair(2, low.z, low.w), pair(4, high.x, high.y), pair(6, high.z, high.w));
  }
}

}  // namespace comba::delta_rule::cuda::sm90
