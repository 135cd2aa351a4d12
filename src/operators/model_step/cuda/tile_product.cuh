#pragma once

#include <cstdint>

#include "operators/cuda/bulk_copy.cuh"
#include "operators/model_step/cuda/inputs.cuh"
#include "operators/model_step/cuda/product.cuh"

/// A matrix times tens of normed columns: what product.cuh computes, to the bit, with each weight and each x in shared
/// memory once for all warps of a block.
///
///     y[r, c] = sum_k W[r, k] x[c, k] / rms(x[c])
///
/// There each warp has an eighth of the sum for all rows and columns of the block, and fetches for itself; here each
/// has some rows and columns, and all of the sum: it adds up one eighth after the other, in the same order. A ninth
/// warp has the copy engine bring the operands, kStepBlocks times 32 places of the sum a stage, weights before the
/// kernel ahead has ended:
///
///     producer  weights of the first stages | wait | x of them | { stage is free | weights and x } ...
///     warps     wait | { stage is there | products } ... | sums | barrier | epilogue, 8 or 16 rows of a column at once
///
/// Grid: 64 columns by 16 kRowTiles rows of W, so that blocks with the same weights are neighbours. Block: 2 by 4
/// warps, each with half of the rows and a quarter of the columns; and the producer. Shared memory: kStages of
/// [kRowTiles][kStepBlocks] KB of weights and half as many for each column tile, later the sums [64][16 kRowTiles + 4];
/// sums of squares [64]; two barriers a stage. From compute capability 9.0.
namespace comba::model_step::cuda {

using namespace bulk_copy;

inline constexpr int kStepBlocks = 4;          ///< of 32 places of the sum
inline constexpr int kTileProductColumns = 8;  ///< tiles of 8
inline constexpr int kTileThreads = kThreads + 32;

template <int kRowTiles, int kStages>
struct TileShared {
  static constexpr int kRows = 16 * kRowTiles, kColumns = 8 * kTileProductColumns;
  struct Stage {
    uint4 weights[kRowTiles][kStepBlocks][2][32];
    uint4 x[kTileProductColumns][kStepBlocks][32];
  };
  union {
    Stage stages[kStages];
    float sums[kColumns][kRows + 4];  // when nothing in the stages is wanted any more
  };
  float squares[kColumns];
  ArrivalBarrier arrived[kStages], free[kStages];
};

/// Brings the operands of a block to shared memory. For a whole warp: lane i copies those of tile i.
template <int kRowTiles, int kStages>
class TileProducer {
 public:
  using Shared = TileShared<kRowTiles, kStages>;

  __device__ TileProducer(Shared& shared, const Weights& weights, const NormInput& input, int columns)
      : shared_(shared), blocks_(weights.blocks), lane_(static_cast<int>(threadIdx.x) % 32) {
    const int row_tile = min(static_cast<int>(blockIdx.y) * kRowTiles + lane_, weights.tiles - 1);
    const int column_tile = static_cast<int>(blockIdx.x) * kTileProductColumns + lane_ - kRowTiles;
    num_column_tiles_ =
        min(kTileProductColumns, (columns + 7) / 8 - static_cast<int>(blockIdx.x) * kTileProductColumns);
    weights_ = weights.data + static_cast<std::int64_t>(row_tile) * blocks_ * 64;
    x_ = input.x + place_of_row(max(column_tile, 0), 0, input.stride);
  }

  __device__ int num_steps() const { return (blocks_ + kStepBlocks - 1) / kStepBlocks; }

  __device__ void load_weights(int step) const {
    if (step >= num_steps()) return;
    const int stage = step % kStages;
    if (lane_ == 0) shared_.arrived[stage].expect(static_cast<unsigned>(kRowTiles * blocks_of(step)) * 1024);
    __syncwarp();
    if (lane_ < kRowTiles) {
      bulk_load(shared_.stages[stage].weights[lane_], weights_ + step * kStepBlocks * 64,
                static_cast<unsigned>(blocks_of(step)) * 1024, shared_.arrived[stage]);
    }
  }
  __device__ void load_x(int step) const {
    if (step >= num_steps()) return;
    const int stage = step % kStages;
    if (lane_ == 0) shared_.arrived[stage].announce(static_cast<unsigned>(num_column_tiles_ * blocks_of(step)) * 512);
    __syncwarp();
    if (lane_ >= kRowTiles && lane_ < kRowTiles + num_column_tiles_) {
      bulk_load(shared_.stages[stage].x[lane_ - kRowTiles], x_ + step * kStepBlocks * kBlockStep,
                static_cast<unsigned>(blocks_of(step)) * 512, shared_.arrived[stage]);
    }
  }
  __device__ void load_others() const {
    for (int step = kStages; step < num_steps(); ++step) {
      shared_.free[step % kStages].wait((step / kStages - 1) & 1);
      load_weights(step), load_x(step);
    }
  }

 private:
  __device__ int blocks_of(int step) const { return min(kStepBlocks, blocks_ - step * kStepBlocks); }

  Shared& shared_;
  const uint4* weights_;
  const bf16* x_;
  int blocks_, lane_, num_column_tiles_;
};

/// The part of a block's rows and columns that one warp multiplies.
template <int kRowTiles, int kStages>
class TileConsumer {
 public:
  using Shared = TileShared<kRowTiles, kStages>;

  __device__ TileConsumer(Shared& shared, int blocks, int warp, int lane)
      : shared_(shared), blocks_(blocks), lane_(lane), row_half_(warp / 4), column_quarter_(warp % 4) {}

  __device__ void multiply(const NormInput& input) {
    int eighth = 0, end = blocks_ / kWarps;  // of the sum, as in product.cuh
    for (int step = 0; step * kStepBlocks < blocks_; ++step) {
      const int stage = step % kStages, first = step * kStepBlocks;
      const auto begin_block = [&](int block) {
        if (block != end) return;
        add_eighth();
        while (block == end) end = (++eighth + 1) * blocks_ / kWarps;
      };
      shared_.arrived[stage].wait(step / kStages & 1);
      begin_block(first);
      if (first + kStepBlocks <= end) {  // without a question between the blocks, so that loads go ahead of products
#pragma unroll
        for (int i = 0; i < kStepBlocks; ++i) multiply_block(shared_.stages[stage], i, input);
      } else {
        for (int i = 0; i < kStepBlocks && first + i < blocks_; ++i) {
          begin_block(first + i);
          multiply_block(shared_.stages[stage], i, input);
        }
      }
      __syncwarp();
      if (lane_ == 0) shared_.free[stage].arrive();
    }
    add_eighth();
  }

  /// When no warp reads the stages any more.
  __device__ void write() const {
    const int group = lane_ / 4, place = lane_ % 4;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
#pragma unroll
      for (int tile = 0; tile < kTiles; ++tile) {
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          const int column = (2 * column_quarter_ + i) * 8 + place * 2 + j % 2;
          shared_.sums[column][(row_half_ * kTiles + tile) * 16 + j / 2 * 8 + group] = sums_[tile][i][j];
        }
      }
    }
    if (place == 0) shared_.squares[(2 * column_quarter_ + row_half_) * 8 + group] = squares_;
  }

 private:
  static constexpr int kTiles = kRowTiles / 2;

  __device__ void multiply_block(const typename Shared::Stage& stage, int block, const NormInput& input) {
    const uint4 x[2] = {stage.x[2 * column_quarter_][block][lane_], stage.x[2 * column_quarter_ + 1][block][lane_]};
    input.transform(of_eighth_, row_half_ == 0 ? x[0] : x[1], 0);  // each column's squares by one warp
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile) {
      const auto& weights = stage.weights[row_half_ * kTiles + tile][block];
      const uint4 upper = weights[0][lane_], lower = weights[1][lane_];
      multiply_add(eighth_sums_[tile][0], upper, lower, x[0]);
      multiply_add(eighth_sums_[tile][1], upper, lower, x[1]);
    }
  }

  __device__ void add_eighth() {
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
#pragma unroll
        for (int j = 0; j < 4; ++j) sums_[tile][i][j] += eighth_sums_[tile][i][j], eighth_sums_[tile][i][j] = 0;
      }
    }
    float squares = of_eighth_.squares;
    squares += __shfl_xor_sync(~0u, squares, 1);
    squares += __shfl_xor_sync(~0u, squares, 2);
    squares_ += squares, of_eighth_.squares = 0;
  }

  Shared& shared_;
  int blocks_, lane_, row_half_, column_quarter_;
  float sums_[kTiles][2][4] = {}, eighth_sums_[kTiles][2][4] = {};
  NormInput::Column of_eighth_{};
  float squares_ = 0;
};

template <int kRowTiles, int kStages, class Epilogue>
__global__ __launch_bounds__(kTileThreads, 1) void tile_product(const Weights weights, const int columns,
                                                                const NormInput input, const Epilogue epilogue) {
  using Shared = TileShared<kRowTiles, kStages>;
  extern __shared__ float4 memory[];
  Shared& shared = *reinterpret_cast<Shared*>(memory);
  const int thread = static_cast<int>(threadIdx.x), warp = thread / 32, lane = thread % 32;
  const bool is_producer = warp == kWarps;
  const int first_row = static_cast<int>(blockIdx.y) * Shared::kRows;
  const int first_column = static_cast<int>(blockIdx.x) * Shared::kColumns;
  // What this thread finishes: some rows of a column at a time, neighbouring threads neighbouring rows.
  constexpr int kRowsAtOnce = Epilogue::kRowsAtOnce, kOfColumn = Shared::kRows / kRowsAtOnce;
  constexpr int kPieces = (kOfColumn * Shared::kColumns + kTileThreads - 1) / kTileThreads;
  const auto for_each_piece = [&](const auto& act) {
#pragma unroll
    for (int i = 0; i < kPieces; ++i) {
      const int piece = i * kTileThreads + thread, row = piece % kOfColumn * kRowsAtOnce, column = piece / kOfColumn;
      if (column < Shared::kColumns && first_column + column < columns && first_row + row < 16 * weights.tiles) {
        act(i, row, column);
      }
    }
  };

  let_next_begin();
  if (thread == 0) {
    for (int stage = 0; stage < kStages; ++stage) shared.arrived[stage].init(1), shared.free[stage].init(kWarps);
    ArrivalBarrier::make_visible();
  }
  __syncthreads();
  const TileProducer<kRowTiles, kStages> producer(shared, weights, input, columns);
  if (is_producer) {
    for (int stage = 0; stage < kStages; ++stage) producer.load_weights(stage);
  }
  typename Epilogue::Kept kept[kPieces];
  for_each_piece([&](int i, int row, int column) { kept[i] = epilogue.keep(first_row + row, first_column + column); });
  wait_for_previous();

  TileConsumer<kRowTiles, kStages> consumer(shared, weights.blocks, warp, lane);
  if (is_producer) {
    for (int stage = 0; stage < kStages; ++stage) producer.load_x(stage);
    producer.load_others();
  } else {
    consumer.multiply(input);
  }
  __syncthreads();  // the stages have been read, and nothing is on its way there
  if (!is_producer) consumer.write();
  __syncthreads();
  for_each_piece([&](int piece, int row, int column) {
    const float scale = input.scale(shared.squares[column]);
    float values[kRowsAtOnce];
#pragma unroll
    for (int i = 0; i < kRowsAtOnce; ++i) values[i] = shared.sums[column][row + i] * scale;
    epilogue.finish_rows(first_row + row, first_column + column, kept[piece], values);
  });
}

}  // namespace comba::model_step::cuda
