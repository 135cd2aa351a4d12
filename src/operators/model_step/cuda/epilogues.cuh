#pragma once

#include "operators/model_step/cuda/bf16.cuh"
#include "operators/model_step/cuda/bulk_copy.cuh"
#include "operators/model_step/model_step.h"

/// What becomes of the results of a product. Each call gets those of rows r and r + 8 of one column.
namespace comba::model_step::cuda {

struct Place {
  int row;     ///< r
  int column;  ///< row of the step
};

/// 8 neighbouring numbers of 16 bits.
struct Eight {
  float x[8];

  Eight() = default;
  __device__ explicit Eight(const uint4& raw)
      : x{low(raw.x), high(raw.x), low(raw.y), high(raw.y), low(raw.z), high(raw.z), low(raw.w), high(raw.w)} {}
  __device__ uint4 packed() const { return {pack(x[0], x[1]), pack(x[2], x[3]), pack(x[4], x[5]), pack(x[6], x[7])}; }
};

__device__ inline float sigmoid(float x) { return 1 / (1 + __expf(-x)); }
__device__ inline float silu(float x) { return x * sigmoid(x); }

inline constexpr int kWidth = 4;  ///< W

/// y = bf16 of the result; of q, k and v what the convolution over the last W tokens and SiLU make of it, with the
/// tails moved on by one token.
struct ConvolutionEpilogue {
  bf16* y;  ///< [R, stride]
  int stride, rows, channels;
  const bf16* taps;  ///< [W, C], or null: SiLU alone
  bf16* tails;       ///< [S, W - 1, C]
  const std::int32_t* slots;
  int num_slots;
  static constexpr int kRowsAtOnce = 8;
  bool takes_rows_at_once() const { return channels % 8 == 0; }
  __device__ bf16* tail_of(int column) const {
    const int slot = slots[column];
    return slot < 0 || slot >= num_slots ? nullptr : tails + static_cast<std::int64_t>(slot) * (kWidth - 1) * channels;
  }
  /// What finish_rows will want, into the L2 cache.
  __device__ void prefetch_rows(int row, int column) const {
    if (taps == nullptr || row >= channels) return;
    const bf16* const tail = tail_of(column);
    if (tail == nullptr) return;
#pragma unroll
    for (int j = 0; j + 1 < kWidth; ++j) asm volatile("prefetch.global.L2 [%0];" ::"l"(tail + j * channels + row));
  }
  __device__ void finish_rows(int row, int column, const float (&values)[8]) const {
    Eight result;
#pragma unroll
    for (int i = 0; i < 8; ++i) result.x[i] = as_float(as_bf16(values[i]));
    if (row < channels) convolve(row, column, result);
    *reinterpret_cast<uint4*>(y + static_cast<std::int64_t>(column) * stride + row) = result.packed();
  }

  /// The first states that the kernel behind this one reads, in parts: into the L2 cache.
  const char* next_states;
  int num_parts, parts_of_row;
  unsigned part_bytes;

  __device__ void begin() const {
    if (threadIdx.x != 0) return;
    const int num_blocks = static_cast<int>(gridDim.x * gridDim.y);
    for (int part = static_cast<int>(blockIdx.y * gridDim.x + blockIdx.x); part < num_parts; part += num_blocks) {
      const int slot = slots[part / parts_of_row];
      if (slot < 0 || slot >= num_slots) continue;
      const std::int64_t place = static_cast<std::int64_t>(slot) * parts_of_row + part % parts_of_row;
      bulk_prefetch(next_states + place * part_bytes, part_bytes);
    }
  }

  /// Of row r and of row r + 8.
  struct Constant {
    bf16* tail = nullptr;  ///< of the slot; null: the row is nobody's
    bf16 taps[2][kWidth], past[2][kWidth];
  };
  __device__ Constant constant(Place at) const {
    Constant constant;
    if (taps == nullptr || at.row >= channels) return constant;
    const int slot = slots[at.column];
    if (slot < 0 || slot >= num_slots) return constant;
    constant.tail = tails + static_cast<std::int64_t>(slot) * (kWidth - 1) * channels;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = at.row + 8 * half;
      if (row >= channels) continue;
#pragma unroll
      for (int j = 0; j < kWidth; ++j) constant.taps[half][j] = taps[j * channels + row];
#pragma unroll
      for (int j = 0; j + 1 < kWidth; ++j) constant.past[half][j] = constant.tail[j * channels + row];
    }
    return constant;
  }
  __device__ void finish(Place at, const Constant& constant, float upper, float lower) const {
    const float values[2] = {upper, lower};
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = at.row + 8 * half;
      if (row >= rows) continue;
      bf16 result = as_bf16(values[half]);
      if (row < channels) result = convolved(constant, half, row, result);
      y[static_cast<std::int64_t>(at.column) * stride + row] = result;
    }
  }

 private:
  __device__ void convolve(int row, int column, Eight& x) const {
    if (taps == nullptr) {
#pragma unroll
      for (int i = 0; i < 8; ++i) x.x[i] = silu(x.x[i]);
      return;
    }
    bf16* const tail = tail_of(column);
    if (tail == nullptr) {
      x = Eight(uint4{});
      return;
    }
    const auto eight_of = [&](const bf16* from, int j) {
      return *reinterpret_cast<const uint4*>(from + j * channels + row);
    };
    uint4 past[kWidth - 1];
#pragma unroll
    for (int j = 0; j + 1 < kWidth; ++j) past[j] = eight_of(tail, j);
    const uint4 now = x.packed();
    const Eight tap(eight_of(taps, kWidth - 1));
#pragma unroll
    for (int i = 0; i < 8; ++i) x.x[i] = tap.x[i] * x.x[i];
#pragma unroll
    for (int j = 0; j + 1 < kWidth; ++j) {
      const Eight old_tap(eight_of(taps, j)), old(past[j]);
#pragma unroll
      for (int i = 0; i < 8; ++i) x.x[i] = fmaf(old_tap.x[i], old.x[i], x.x[i]);
      *reinterpret_cast<uint4*>(tail + j * channels + row) = j + 2 < kWidth ? past[j + 1] : now;
    }
#pragma unroll
    for (int i = 0; i < 8; ++i) x.x[i] = silu(x.x[i]);
  }
  __device__ bf16 convolved(const Constant& constant, int half, int row, bf16 x) const {
    if (taps == nullptr) return as_bf16(silu(as_float(x)));
    if (constant.tail == nullptr) return {};
    float sum = as_float(constant.taps[half][kWidth - 1]) * as_float(x);
#pragma unroll
    for (int j = 0; j + 1 < kWidth; ++j) {
      sum = fmaf(as_float(constant.taps[half][j]), as_float(constant.past[half][j]), sum);
      constant.tail[j * channels + row] = j + 2 < kWidth ? constant.past[half][j + 1] : x;
    }
    return as_bf16(silu(sum));
  }
};

/// residual += result. Nobody else reads or writes these places meanwhile.
struct ResidualEpilogue {
  bf16* residual;  ///< [R, stride]
  int stride, rows;

  struct Constant {};
  __device__ Constant constant(Place) const { return {}; }
  __device__ void finish(Place at, const Constant&, float upper, float lower) const {
    bf16* const to = residual + place_in_rows(at.column, at.row, stride);  // and row r + 8 of the same block
    if (at.row < rows) to[0] = as_bf16(load_fresh_one(to) + upper);
    if (at.row + 8 < rows) to[8] = as_bf16(load_fresh_one(to + 8) + lower);
  }
  static constexpr int kRowsAtOnce = 8;
  bool takes_rows_at_once() const { return true; }
  /// Behind the last row zeros are added to zeros.
  __device__ void finish_rows(int row, int column, const float (&values)[8]) const {
    auto* const to = reinterpret_cast<uint4*>(residual + place_in_rows(column, row, stride));
    Eight sum(__ldcg(to));
#pragma unroll
    for (int i = 0; i < 8; ++i) sum.x[i] += values[i];
    *to = sum.packed();
  }
};

/// y = silu(gate) up, of rows that are 8 gates and 8 ups in turn.
struct SwigluEpilogue {
  bf16* y;  ///< [R, stride]
  int stride;

  struct Constant {};
  __device__ Constant constant(Place) const { return {}; }
  __device__ void finish(Place at, const Constant&, float gate, float up) const {
    const int channel = at.row / 16 * 8 + at.row % 8;
    y[place_in_rows(at.column, channel, stride)] = as_bf16(silu(gate) * up);
  }
  static constexpr int kRowsAtOnce = 16;
  bool takes_rows_at_once() const { return true; }
  __device__ void finish_rows(int row, int column, const float (&values)[16]) const {
    Eight result;
#pragma unroll
    for (int i = 0; i < 8; ++i) result.x[i] = silu(values[i]) * values[8 + i];
    *reinterpret_cast<uint4*>(y + place_in_rows(column, row / 2, stride)) = result.packed();
  }
};

struct LogitsEpilogue {
  float* logits;  ///< [R, stride]
  int stride;

  struct Constant {};
  __device__ Constant constant(Place) const { return {}; }
  __device__ void finish(Place at, const Constant&, float upper, float lower) const {
    float* const to = logits + static_cast<std::int64_t>(at.column) * stride + at.row;
    to[0] = upper, to[8] = lower;
  }
  static constexpr int kRowsAtOnce = 8;
  bool takes_rows_at_once() const { return true; }
  __device__ void finish_rows(int row, int column, const float (&values)[8]) const {
    auto* const to = reinterpret_cast<float4*>(logits + static_cast<std::int64_t>(column) * stride + row);
    to[0] = {values[0], values[1], values[2], values[3]};
    to[1] = {values[4], values[5], values[6], values[7]};
  }
};

}  // namespace comba::model_step::cuda
