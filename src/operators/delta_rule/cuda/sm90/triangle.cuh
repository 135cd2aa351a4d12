#pragma once

#include "operators/delta_rule/cuda/sm90/gates.cuh"
#include "operators/delta_rule/cuda/sm90/inverse.cuh"

/// Products of the tokens of a chunk with those before them, in the registers of a warpgroup, with their decays.
namespace comba::delta_rule::cuda::sm90 {

/// Four 8 x 8 matrices of 16 bits, of which a lane has two neighbours each, to the rows of 16 bytes that its and the
/// other lanes' `to` name.
__device__ inline void store_matrices(void* to, unsigned a, unsigned b, unsigned c, unsigned d) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(cast_smem_ptr_to_uint(to)),
               "r"(a), "r"(b), "r"(c), "r"(d)
               : "memory");
}

/// The warp's 16 rows of a lower triangular matrix, in the accumulators of a product: the columns left of the warp's
/// diagonal block where they are, the block in the place of the last 16 columns.
template <class C>
struct Triangle {
  static constexpr int kBlock = kChunk / 8 - 2;
  C& x;

  /// From products of rows i and columns j: factor[i] e^{to_i - G_j} / |k_j| times them below the diagonal, or up to
  /// it.
  ///
  /// Left of the block e^{to_i - G_j} = e^{to_i - G_m} e^{G_m - G_j} with m the token before the block: one exponential
  /// a row and one a column. In the block itself each element has its own.
  __device__ Triangle(C& products, bool with_diagonal, const float (&factor)[2], const LogDecay (&to)[2],
                      const ChunkGates& gates, const float* k_norm, float* column_factor)
      : x(products) {
    const int warp = warp_of_group(), lane = threadIdx.x % 32;
    const LogDecay before = warp == 0 ? LogDecay(0.0) : gates.G[16 * warp - 1];
    for (int j = lane; j < 16 * warp; j += 32) column_factor[j] = k_norm[j] * decay_between(before, gates.G[j]);
    __syncwarp();
    float row_factor[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) row_factor[half] = factor[half] * decay_between(to[half], before);
#pragma unroll
    for (int n = 0; n < kChunk / 8; ++n) {
      if (n / 2 < warp) {
        const float2 column = *reinterpret_cast<const float2*>(column_factor + 8 * n + first_column());
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          at(x, 0, n, half, 0) *= row_factor[half] * column.x;
          at(x, 0, n, half, 1) *= row_factor[half] * column.y;
        }
      } else if (n / 2 == warp) {
#pragma unroll
        for (int i = 0; i < 4; ++i) at(x, 0, kBlock + n % 2, i / 2, i % 2) = at(x, 0, n, i / 2, i % 2);
      }
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int n = i / 2, side = i % 2, column = 8 * n + first_column() + side, row = lane / 4;
      const float norm = k_norm[16 * warp + column];
      const LogDecay from = gates.G[16 * warp + column];
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const bool present = row + 8 * half + with_diagonal > column;
        float& element = at(x, 0, kBlock + n, half, side);
        element = present ? factor[half] * norm * element * decay_between(to[half], from) : 0;
      }
    }
  }

  __device__ void store(InverseRow* to) const {
    const int warp = warp_of_group();
    float* const row = &to[first_row()][first_column()];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
#pragma unroll
      for (int n = 0; n < kChunk / 8; ++n) {
        if (n / 2 >= warp) continue;
        *reinterpret_cast<float2*>(row + 8 * half * kInverseStride + 8 * n) =
            make_float2(at(x, 0, n, half, 0), at(x, 0, n, half, 1));
      }
#pragma unroll
      for (int n = 0; n < 2; ++n) {
        *reinterpret_cast<float2*>(row + 8 * half * kInverseStride + 16 * warp + 8 * n) =
            make_float2(at(x, 0, kBlock + n, half, 0), at(x, 0, kBlock + n, half, 1));
      }
    }
  }

  /// Itself times m, rounded, as a tile; it is used up. Accumulators are left operands, if both operands count the
  /// inner columns as those of inverse.cuh do.
  template <class Element>
  __device__ void multiply(const InverseRow* m, Element* tile) {
    const int warp = warp_of_group(), lane = threadIdx.x % 32;
#pragma unroll
    for (int i = 0; i < size(x); ++i) x(i) = __uint_as_float(as_tf32(x(i)));
    std::uint8_t* const row = reinterpret_cast<std::uint8_t*>(tile);
#pragma unroll
    for (int n = 0; n < kChunk / 8; n += 2) {
      float sum[2][4] = {};
      const auto add = [&](int k, int row) {
        unsigned a[4], b[2];
#pragma unroll
        for (int i = 0; i < 4; ++i) a[i] = __float_as_uint(at(x, 0, k, i % 2, i / 2));
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          load_right(m, row, 8 * (n + i), b);
          multiply_tf32(sum[i], a, b);
        }
      };
      if (n / 2 <= warp) {
#pragma unroll
        for (int k = n; k < kChunk / 8 - 2; ++k) {
          if (k / 2 >= warp) continue;
          add(k, 8 * k);
        }
        add(kBlock, 16 * warp);
        add(kBlock + 1, 16 * warp + 8);
      }
      store_matrices(row + piece_offset<kChunk>(16 * warp + lane % 16, n + lane / 16),
                     pack<Element>(sum[0][0], sum[0][1]), pack<Element>(sum[0][2], sum[0][3]),
                     pack<Element>(sum[1][0], sum[1][1]), pack<Element>(sum[1][2], sum[1][3]));
    }
  }
};

}  // namespace comba::delta_rule::cuda::sm90
