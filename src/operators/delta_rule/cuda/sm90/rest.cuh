#pragma once

#include "operators/delta_rule/cuda/sm90/tiles.cuh"

/// What rounding leaves of rows that are multiplied by K^T, so that the sums of rows with like keys stay nearly exact.
///
/// The rests of rows r and r + 8 of a warp's 16, which one thread has, are added up and multiplied by k_{r+8}. Where
/// the keys are alike, only the sum counts; where they are not, the rest of r in that place does the harm that the rest
/// of r + 8, the later and so the larger row, undoes. A tile of rests has 32 of the chunk's 64 rows: half of the
/// products.
namespace comba::delta_rule::cuda::sm90 {

/// Writes accumulators C (64 x kColumns), times factor(half) of their half, rounded, as the tile C^T. What rounding
/// leaves of rows r and r + 8 of a warp, added up, stays in `rest`, a pair of columns each.
template <class Element, int kColumns, class C, class Factor>
__device__ void store_transposed(const C& c, void* to, const Factor& factor, std::uint32_t (&rest)[kColumns / 8]) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x % kWarpGroup / 32;
  const std::uint32_t begin =
      cast_smem_ptr_to_uint(to) + piece_offset<kColumns>(lane / 16 * 8 + lane % 8, 2 * warp + lane / 8 % 2);
#pragma unroll
  for (int n = 0; n < kColumns / 8; n += 2) {
    std::uint32_t rounded[2][2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      float sum[2] = {};
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const float value[2] = {factor(half) * at(c, 0, n + i, half, 0), factor(half) * at(c, 0, n + i, half, 1)};
        rounded[i][half] = pack<Element>(value[0], value[1]);
        const Element* const pair = reinterpret_cast<const Element*>(&rounded[i][half]);
#pragma unroll
        for (int side = 0; side < 2; ++side) sum[side] += value[side] - static_cast<float>(pair[side]);
      }
      rest[n + i] = pack<Element>(sum[0], sum[1]);
    }
    asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(begin + n * 8 * 128),
                 "r"(rounded[0][0]), "r"(rounded[0][1]), "r"(rounded[1][0]), "r"(rounded[1][1])
                 : "memory");
  }
}

/// Writes the rest of rows r and r + 8 of a warp as column 8 warp + r of half 0 or 1 of a tile.
template <class Element, int kColumns>
__device__ void store_rest(const std::uint32_t (&rest)[kColumns / 8], void* to, int half = 0) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x % kWarpGroup / 32;
  const std::uint32_t begin = cast_smem_ptr_to_uint(to) + piece_offset<kColumns>(lane % 16, 4 * half + warp);
#pragma unroll
  for (int n = 0; n < kColumns / 8; n += 2) {
    asm volatile("stmatrix.sync.aligned.m8n8.x2.trans.shared.b16 [%0], {%1, %2};" ::"r"(begin + n * 8 * 128),
                 "r"(rest[n]), "r"(rest[n + 1])
                 : "memory");
  }
}

/// The half tile that store_rest() writes.
template <class Element, int kColumns>
__device__ auto tile_of_rest(void* rest, int half = 0) {
  return local_tile(tile<Element, kColumns, kChunk>(rest), Shape<Int<kColumns>, _32>{}, make_coord(0, half));
}

/// The transposed rows of a tile that the rests are multiplied by.
template <class Element, int kColumns>
__device__ auto transposed_rows_of_rest(Element* k) {
  const auto last_8_of_16 = make_layout(Shape<_8, _4>{}, Stride<_1, _16>{});
  return make_tensor(make_smem_ptr(k + 8 * 64), composition(TransposedLayout<Element, kChunk, kColumns>{},
                                                            make_tile(make_layout(Int<kColumns>{}), last_8_of_16)));
}

/// Rows of absent tokens, from `first` on, belong to the next sequence. They become zero, since zero times whatever
/// they hold must be zero; those that the rest of a present row is multiplied by become its copies. For a warpgroup.
template <class Element, int kColumns>
__device__ void replace_absent_rows(Element* k, int first) {
  constexpr int kPieces = kColumns / 8;
  for (int i = first * kPieces + threadIdx.x % kWarpGroup; i < kChunk * kPieces; i += kWarpGroup) {
    const int row = i / kPieces;
    char* const to = reinterpret_cast<char*>(k) + piece_offset<kChunk>(row, i % kPieces);
    if (row % 16 >= 8 && row - 8 < first) {
      *reinterpret_cast<uint4*>(to) = *reinterpret_cast<const uint4*>(to - 8 * 128);
    } else {
      clear_piece(to);
    }
  }
}

}  // namespace comba::delta_rule::cuda::sm90
