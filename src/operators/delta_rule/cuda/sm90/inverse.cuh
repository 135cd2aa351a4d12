#pragma once

#include "operators/delta_rule/cuda/sm90/tiles.cuh"

/// The inverse of I + A for a strictly lower triangular A of a chunk.
///
/// Blocks of 16 are inverted by substitution in fp32, then joined twice:
///
///     (I + A)^-1 = [ M11 0 ; -M22 A21 M11  M22 ]        of blocks of 16, then of 32
///
/// The products run in tf32: M is rounded to 16 bits afterwards.
namespace comba::delta_rule::cuda::sm90 {

constexpr int kInverseStride = kChunk + 8;  ///< floats of a row of A: rows begin 8 banks apart

using InverseRow = float[kInverseStride];

/// A warp inverts the diagonal block of 16 that begins at `first`, in place: a lane has a column of the inverse in
/// registers (the upper lanes repeat it), and all lanes read the same element of A.
__device__ inline void invert_block(InverseRow* a, int first) {
  constexpr int kBlock = 16;
  const int column = static_cast<int>(threadIdx.x) % kBlock;
  float m[kBlock];
  m[0] = column == 0;
#pragma unroll
  for (int i = 1; i < kBlock; ++i) {
    float sum[2] = {static_cast<float>(column == i), 0};
#pragma unroll
    for (int j = 0; j < i; j += 4) {
      const float4 four = *reinterpret_cast<const float4*>(&a[first + i][first + j]);
      const float at[4] = {four.x, four.y, four.z, four.w};
#pragma unroll
      for (int k = j; k < i && k < j + 4; ++k) sum[k % 2] = fmaf(-at[k - j], m[k], sum[k % 2]);
    }
    m[i] = sum[0] + sum[1];
  }
  __syncwarp();
  if (threadIdx.x % 32 >= kBlock) return;
#pragma unroll
  for (int i = 0; i < kBlock; ++i) a[first + i][first + column] = m[i];
}

/// Rounded to the 10 bits of tf32, of which the product drops the rest. (cvt.rna.tf32 costs three instructions.)
__device__ inline unsigned as_tf32(float x) { return __float_as_uint(x) + 0x1000; }

/// A warp computes c = factor a b, for a kSize x kSize matrix a and 8 columns of b; all have rows of kInverseStride.
template <int kSize>
__device__ void multiply_columns(float factor, const float* a, const float* b, float* c) {
  const int row = threadIdx.x % 32 / 4, column = threadIdx.x % 4;
#pragma unroll
  for (int m = 0; m < kSize; m += 16) {
    float sum[4] = {};
#pragma unroll
    for (int k = 0; k < kSize; k += 8) {
      const float* const left = a + (m + row) * kInverseStride + k + column;
      const float* const right = b + (k + column) * kInverseStride + row;
      asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, "
          "%2, %3};"
          : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
          : "r"(as_tf32(left[0])), "r"(as_tf32(left[8 * kInverseStride])), "r"(as_tf32(left[4])),
            "r"(as_tf32(left[8 * kInverseStride + 4])), "r"(as_tf32(right[0])),
            "r"(as_tf32(right[4 * kInverseStride])));
    }
    float* const to = c + (m + row) * kInverseStride + 2 * column;
    *reinterpret_cast<float2*>(to) = make_float2(factor * sum[0], factor * sum[1]);
    *reinterpret_cast<float2*>(to + 8 * kInverseStride) = make_float2(factor * sum[2], factor * sum[3]);
  }
}

/// Writes the inverse of I + `a`, less I, rounded, as a tile to the workspace; `a` is used up. For a warpgroup, which
/// has just met.
template <class Element>
__device__ void invert(InverseRow* a, Element* inverse) {
  const int warp = static_cast<int>(threadIdx.x) / 32;
  invert_block(a, 16 * warp);
  __syncthreads();
  // A21 M11 goes to the upper right quarter, which nobody reads; -M22 times that takes the place of A21. A warp has 8
  // columns.
  InverseRow* const product = a;
  const int pair = warp / 2 * 32, half = warp % 2 * 8;
  multiply_columns<16>(1, &a[pair + 16][pair], &a[pair][pair + half], &product[pair / 2][32 + half]);
  __syncthreads();
  multiply_columns<16>(-1, &a[pair + 16][pair + 16], &product[pair / 2][32 + half], &a[pair + 16][pair + half]);
  __syncthreads();
  multiply_columns<32>(1, &a[32][0], &a[0][8 * warp], &product[0][32 + 8 * warp]);
  __syncthreads();
  multiply_columns<32>(-1, &a[32][32], &product[0][32 + 8 * warp], &a[32][8 * warp]);
  __syncthreads();
#pragma unroll
  for (int piece = threadIdx.x; piece < kChunk * kChunk / 8; piece += kWarpGroup) {
    const int row = piece / 8, column = piece % 8 * 8;
    const float4 low = *reinterpret_cast<const float4*>(&a[row][column]);
    const float4 high = *reinterpret_cast<const float4*>(&a[row][column + 4]);
    const auto pair = [&](int i, float first, float second) {
      return pack<Element>(column + i >= row ? 0 : first, column + i + 1 >= row ? 0 : second);
    };
    *reinterpret_cast<uint4*>(reinterpret_cast<char*>(inverse) + piece_offset<kChunk>(row, piece % 8)) =
        make_uint4(pair(0, low.x, low.y), pair(2, low.z, low.w), pair(4, high.x, high.y), pair(6, high.z, high.w));
  }
}

}  // namespace comba::delta_rule::cuda::sm90
