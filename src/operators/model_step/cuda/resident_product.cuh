#pragma once

#include <cstdint>

#include "operators/model_step/cuda/product.cuh"

/// A matrix of many rows times tens of columns: what product.cuh computes, to the bit, with the columns in registers.
///
///     y[r, c] = sum_k W[r, k] x[c, k]
///
/// There each block reads its columns of x again from the L2 cache, which for 64 of them is more than its weights. Here
/// a block keeps 8 kColumnTiles columns and walks down the matrix, 16 rows at a time, so that only weights are read,
/// and those of the next rows are on their way meanwhile. Grid: blocks side by side down the rows, as many as the GPU
/// holds at once; columns. Block: 8 warps, each with an eighth of the sum, of at most kBlocks steps of 32.
///
///     warps     weights of the first rows | wait | x | { products | partial sums | barrier | sum, epilogue } ...
///
/// Shared memory: kStages times [kBlocks][2][256] of 16 bytes; twice partial sums [8][16][8 kColumnTiles + 2], so that
/// one barrier each 16 rows is enough; squares [8][8 kColumnTiles]. Registers: kBlocks kColumnTiles of 16 bytes hold x.
namespace comba::model_step::cuda {

template <int kBlocks, int kColumnTiles, int kStages>
struct ResidentShared {
  static constexpr int kColumns = 8 * kColumnTiles;
  uint4 weights[kStages][kBlocks][2][kThreads];  // each thread reads what it has copied itself
  float sums[2][kWarps][16][kColumns + 2];
  float squares[kWarps][kColumns];
};

template <int kBlocks, int kColumnTiles, int kStages, class Input, class Epilogue>
__global__ __launch_bounds__(kThreads) void resident_product(const Weights weights, const int columns,
                                                             const Input input, const Epilogue epilogue) {
  static_assert(Input::kMore == 0);
  using Shared = ResidentShared<kBlocks, kColumnTiles, kStages>;
  extern __shared__ float4 memory[];
  Shared& shared = *reinterpret_cast<Shared*>(memory);
  const int thread = static_cast<int>(threadIdx.x), warp = thread / 32, lane = thread % 32;
  const int group = lane / 4, place = lane % 4;
  const int first_column = static_cast<int>(blockIdx.y) * Shared::kColumns;
  const int begin = warp * weights.blocks / kWarps, end = (warp + 1) * weights.blocks / kWarps;
  const int num_groups = static_cast<int>(gridDim.x);
  const auto copy_weights = [&](int stage, int tile) {
    if (tile < weights.tiles) {
      const uint4* const from = weights.data + (static_cast<std::int64_t>(tile) * weights.blocks + begin) * 64 + lane;
#pragma unroll
      for (int block = 0; block < kBlocks; ++block) {
        if (begin + block >= end) break;
        copy_async(shared.weights[stage][block][0][thread], from + block * 64);
        copy_async(shared.weights[stage][block][1][thread], from + block * 64 + 32);
      }
    }
    commit_copies();
  };
  // The places of each 16 rows that this thread finishes.
  constexpr int kPlaces = Shared::kColumns * 8 / kThreads;
  static_assert(kPlaces * kThreads == Shared::kColumns * 8);
  typename Epilogue::Constant constants[kPlaces];
  const auto place_of = [&](int tile, int i) {
    return Place{16 * tile + thread % 8, first_column + (i * kThreads + thread) / 8};
  };
  const auto fetch_constants = [&](int tile) {
#pragma unroll
    for (int i = 0; i < kPlaces; ++i) {
      const Place at = place_of(tile, i);
      if (at.column < columns) constants[i] = epilogue.constant(at);
    }
  };

  let_next_begin();
  const int first_tile = static_cast<int>(blockIdx.x);
#pragma unroll
  for (int stage = 0; stage < kStages; ++stage) copy_weights(stage, first_tile + stage * num_groups);
  fetch_constants(first_tile);
  wait_for_previous();

  uint4 x[kBlocks][kColumnTiles];
#pragma unroll
  for (int i = 0; i < kColumnTiles; ++i) {
    const int column = first_column + 8 * i + group;
    const auto from = input.column(first_column / 8 + i, group, begin * 32);
#pragma unroll
    for (int block = 0; block < kBlocks; ++block) {
      const bool exists = column < columns && begin + block < end;
      x[block][i] = exists ? __ldcg(reinterpret_cast<const uint4*>(
                                 input.x + (from.at + static_cast<unsigned>((begin + block) * kBlockStep + place * 8))))
                           : uint4{0, 0, 0, 0};
    }
  }
#pragma unroll
  for (int i = 0; i < kColumnTiles; ++i) {
    auto column = input.column(first_column / 8 + i, group, begin * 32);
#pragma unroll
    for (int block = 0; block < kBlocks; ++block) {
      if (begin + block < end) {
        x[block][i] = input.transform(column, x[block][i], (begin + block) * 32 + place * 8);
      }
    }
    if constexpr (Input::kSumsSquares) {
      float squares = column.squares;
      squares += __shfl_xor_sync(~0u, squares, 1);
      squares += __shfl_xor_sync(~0u, squares, 2);
      if (place == 0) shared.squares[warp][i * 8 + group] = squares;
    }
  }
  __syncthreads();
  float scale[kPlaces];
#pragma unroll
  for (int i = 0; i < kPlaces; ++i) {
    float squares = 0;
    if constexpr (Input::kSumsSquares) {
#pragma unroll
      for (int w = 0; w < kWarps; ++w) squares += shared.squares[w][(i * kThreads + thread) / 8];
    }
    scale[i] = input.scale(squares);
  }

  int stage = 0, turn = 0;
  for (int tile = first_tile; tile < weights.tiles; tile += num_groups) {
    if (tile != first_tile) fetch_constants(tile);
    wait_for_copies<kStages - 1>();
    float sums[kColumnTiles][4] = {};
#pragma unroll
    for (int block = 0; block < kBlocks; ++block) {
      if (begin + block >= end) break;
      const uint4 upper = shared.weights[stage][block][0][thread], lower = shared.weights[stage][block][1][thread];
#pragma unroll
      for (int i = 0; i < kColumnTiles; ++i) multiply_add(sums[i], upper, lower, x[block][i]);
    }
    copy_weights(stage, tile + kStages * num_groups);
    stage = stage + 1 < kStages ? stage + 1 : 0;
#pragma unroll
    for (int i = 0; i < kColumnTiles; ++i) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        *reinterpret_cast<float2*>(&shared.sums[turn][warp][half * 8 + group][i * 8 + place * 2]) =
            make_float2(sums[i][2 * half], sums[i][2 * half + 1]);
      }
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < kPlaces; ++i) {
      const Place at = place_of(tile, i);
      if (at.column >= columns) continue;
      float upper = 0, lower = 0;
#pragma unroll
      for (int w = 0; w < kWarps; ++w) {
        upper += shared.sums[turn][w][thread % 8][at.column - first_column];
        lower += shared.sums[turn][w][thread % 8 + 8][at.column - first_column];
      }
      epilogue.finish(at, constants[i], upper * scale[i], lower * scale[i]);
    }
    turn ^= 1;
  }
}

}  // namespace comba::model_step::cuda
