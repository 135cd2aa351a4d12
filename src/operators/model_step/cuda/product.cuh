#pragma once

#include <cstdint>

#include "operators/model_step/cuda/bf16.cuh"
#include "operators/model_step/cuda/dependent_launch.cuh"
#include "operators/model_step/cuda/epilogues.cuh"
#include "operators/model_step/model_step.h"

/// A matrix times few columns: reads each weight once, at the rate of the memory.
///
///     y[r, c] = sum_k W[r, k] x[c, k]
///
/// Grid: 16 kRowTiles rows of W by 8 kColumnTiles columns. Block: 8 warps, each with an eighth of the sum, in steps of
/// 32; it multiplies on the tensor cores (m16n8k16, W as the first operand), so that a column more costs nothing. A
/// lane reads 8 neighbouring weights of a row, and the same 8 places of its column of x: two products in which the
/// order of the sum is not that of memory, but is the same for both operands.
/// The next kStages steps are on their way to shared memory, where each thread reads what it copied itself, so that
/// nobody has to be waited for; the first weights before the kernel ahead has ended:
///
///     warps     weights of the first steps | wait | x | products ... | partial sums | barrier | sum, epilogue
///
/// Shared memory: kStages times [256] of 16 bytes for each row tile twice and each column tile, later partial sums
/// [8][16 kRowTiles][8 kColumnTiles + 2]; sums of squares [8][8 kColumnTiles]. Numerics: fp32 sums, in an order that
/// depends on the matrix alone: not on the number of columns, nor on the tiles.
///
/// Input: what comes in, as 8 numbers of a column at a time; it may sum up something of each column on the way.
/// Epilogue: what becomes of y. It takes rows r and r + 8 together. `constant` is what else it needs: what this step
/// does not change, fetched before the wait, or, kIsFresh, what kernels before this one wrote.
namespace comba::model_step::cuda {

inline constexpr int kWarps = 8, kThreads = 32 * kWarps;

/// PackedMatrix as the lanes see it: [tiles][blocks][2][32] of 8 weights.
struct Weights {
  const uint4* data;
  int tiles;   ///< of 16 rows
  int blocks;  ///< of 32 columns
};

/// sum += W x for 16 rows, 8 columns and 32 places of the sum.
__device__ inline void multiply_add(float (&sum)[4], const uint4& upper, const uint4& lower, const uint4& x) {
  const auto mma = [&](unsigned a0, unsigned a1, unsigned a2, unsigned a3, unsigned b0, unsigned b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, "
        "%2, "
        "%3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
  };
  mma(upper.x, lower.x, upper.y, lower.y, x.x, x.y);
  mma(upper.z, lower.z, upper.w, lower.w, x.z, x.w);
}

/// kMore: 1 where an input fetches more than x of each column.
template <int kRowTiles, int kColumnTiles, int kStages, int kMore>
struct ProductShared {
  static constexpr int kRows = 16 * kRowTiles, kColumns = 8 * kColumnTiles;
  // Each thread reads what it has copied itself.
  struct Ring {
    uint4 weights[kStages][kRowTiles][2][kThreads];
    uint4 x[kStages + kMore][kColumnTiles][kThreads];
  };
  union {
    Ring ring;
    float sums[kWarps][kRows][kColumns + 2];  // when nothing in the ring is wanted any more
  };
  float squares[kWarps][kColumns];
};

/// Blocks that an SM must hold at once: two of the large ones, so that one computes while the other reads.
constexpr int blocks_of(int row_tiles, int column_tiles) { return row_tiles * column_tiles == 16 ? 2 : 1; }

template <int kRowTiles, int kColumnTiles, int kStages, class Input, class Epilogue>
__global__ __launch_bounds__(kThreads, blocks_of(kRowTiles, kColumnTiles)) void product(const Weights weights,
                                                                                        const int columns,
                                                                                        const Input input,
                                                                                        const Epilogue epilogue) {
  using Shared = ProductShared<kRowTiles, kColumnTiles, kStages, Input::kMore>;
  extern __shared__ float4 memory[];
  Shared& shared = *reinterpret_cast<Shared*>(memory);
  const int thread = static_cast<int>(threadIdx.x), warp = thread / 32, lane = thread % 32;
  const int group = lane / 4, place = lane % 4;
  const int first_column = static_cast<int>(blockIdx.y) * Shared::kColumns;
  const int begin = warp * weights.blocks / kWarps, end = (warp + 1) * weights.blocks / kWarps;
  const int first_tile = static_cast<int>(blockIdx.x) * kRowTiles, last_tile = weights.tiles - 1;
  const auto copy_weights = [&](int stage, int block) {
    if (block >= end) return;
#pragma unroll
    for (int tile = 0; tile < kRowTiles; ++tile) {
      const std::int64_t at = static_cast<std::int64_t>(min(first_tile + tile, last_tile)) * weights.blocks + block;
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        copy_async(shared.ring.weights[stage][tile][half][thread], weights.data + at * 64 + half * 32 + lane);
      }
    }
  };
  typename Input::Column column[kColumnTiles];
#pragma unroll
  for (int i = 0; i < kColumnTiles; ++i) column[i] = input.column(first_column / 8 + i, group, begin * 32);
  // Of columns beyond the last nothing is read, and nobody looks at what comes of what is there instead.
  const auto exists = [&](int i) { return first_column + 8 * i + group < columns; };
  const auto copy_x = [&](int stage, int block) {
    if (block >= end) return;
#pragma unroll
    for (int i = 0; i < kColumnTiles; ++i) {
      if (!exists(i)) continue;
      copy_async(shared.ring.x[stage][i][thread],
                 input.x + column[i].at + static_cast<unsigned>(block * kBlockStep + place * 8));
    }
  };

  let_next_begin();
#pragma unroll
  for (int stage = 0; stage < kStages; ++stage) copy_weights(stage, begin + stage);
  // The places that this thread finishes.
  constexpr int kPlaces = (kRowTiles * 8 * Shared::kColumns + kThreads - 1) / kThreads;
  typename Epilogue::Constant constants[kPlaces];
  const auto place_of = [&](int i) {
    const int number = i * kThreads + thread;
    return Place{16 * first_tile + number / (8 * Shared::kColumns) * 16 + number % 8,
                 first_column + number / 8 % Shared::kColumns};
  };
  const auto is_wanted = [&](int i, const Place& at) {
    return i * kThreads + thread < kRowTiles * 8 * Shared::kColumns && at.column < columns &&
           at.row < 16 * weights.tiles;
  };
  const auto fetch_constants = [&] {
#pragma unroll
    for (int i = 0; i < kPlaces; ++i) {
      const Place at = place_of(i);
      if (is_wanted(i, at)) constants[i] = epilogue.constant(at);
    }
  };
  if constexpr (kPlaces == 1 && !Epilogue::kIsFresh) fetch_constants();
  wait_for_previous();

#pragma unroll
  for (int stage = 0; stage < kStages; ++stage) {
    copy_x(stage, begin + stage);
    if constexpr (Input::kMore > 0) {
#pragma unroll
      for (int i = 0; i < kColumnTiles; ++i) {
        if (stage == 0 && exists(i)) input.queue(column[i], shared.ring.x[kStages][i][thread]);
      }
    }
    commit_copies();
  }
  if constexpr (Epilogue::kIsFresh) fetch_constants();
  float sums[kRowTiles][kColumnTiles][4] = {};
  int stage = 0;
  for (int block = begin; block < end; ++block) {
    wait_for_copies<kStages - 1>();
    if constexpr (Input::kMore > 0) {
#pragma unroll
      for (int i = 0; i < kColumnTiles; ++i) {
        if (block == begin) input.begin(column[i], shared.ring.x[kStages][i][thread]);
      }
    }
    uint4 w[kRowTiles][2];
#pragma unroll
    for (int tile = 0; tile < kRowTiles; ++tile) {
#pragma unroll
      for (int half = 0; half < 2; ++half) w[tile][half] = shared.ring.weights[stage][tile][half][thread];
    }
#pragma unroll
    for (int i = 0; i < kColumnTiles; ++i) {
      const uint4 x = input.transform(column[i], shared.ring.x[stage][i][thread], block * 32 + place * 8);
#pragma unroll
      for (int tile = 0; tile < kRowTiles; ++tile) multiply_add(sums[tile][i], w[tile][0], w[tile][1], x);
    }
    copy_weights(stage, block + kStages);
    copy_x(stage, block + kStages);
    commit_copies();
    stage = stage + 1 < kStages ? stage + 1 : 0;
  }
  if constexpr (kPlaces > 1 && !Epilogue::kIsFresh) fetch_constants();
  wait_for_copies<0>();
  __syncthreads();  // the ring has been read, and nothing is on its way there

#pragma unroll
  for (int i = 0; i < kColumnTiles; ++i) {
#pragma unroll
    for (int tile = 0; tile < kRowTiles; ++tile) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        *reinterpret_cast<float2*>(&shared.sums[warp][tile * 16 + half * 8 + group][i * 8 + place * 2]) =
            make_float2(sums[tile][i][2 * half], sums[tile][i][2 * half + 1]);
      }
    }
    if constexpr (Input::kSumsSquares) {
      float squares = column[i].squares;
      squares += __shfl_xor_sync(~0u, squares, 1);
      squares += __shfl_xor_sync(~0u, squares, 2);
      if (place == 0) shared.squares[warp][i * 8 + group] = squares;
    }
  }
  __syncthreads();
#pragma unroll
  for (int i = 0; i < kPlaces; ++i) {
    const Place at = place_of(i);
    if (!is_wanted(i, at)) continue;
    const int row = at.row - 16 * first_tile, shared_column = at.column - first_column;
    float upper = 0, lower = 0, squares = 0;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
      upper += shared.sums[w][row][shared_column];
      lower += shared.sums[w][row + 8][shared_column];
      if constexpr (Input::kSumsSquares) squares += shared.squares[w][shared_column];
    }
    const float scale = input.scale(squares);
    epilogue.finish(at, constants[i], upper * scale, lower * scale);
  }
}

}  // namespace comba::model_step::cuda
