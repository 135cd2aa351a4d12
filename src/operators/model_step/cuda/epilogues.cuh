#pragma once

#include "operators/model_step/cuda/bf16.cuh"
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

  /// Of row r and of row r + 8.
  struct Constant {
    bf16* tail = nullptr;  ///< of the slot; null: the row is nobody's
    bf16 taps[2][kWidth], past[2][kWidth];
  };
  static constexpr bool kIsFresh = false;
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

  /// 8 rows of a column at once.
  static constexpr int kRowsAtOnce = 8;
  bool takes_rows_at_once() const { return channels % kRowsAtOnce == 0; }
  struct Kept {
    bf16* tail = nullptr;
    uint4 past[kWidth - 1];
  };
  __device__ Kept keep(int row, int column) const {
    Kept kept;
    const int slot = slots[column];
    if (taps == nullptr || row >= channels || slot < 0 || slot >= num_slots) return kept;
    kept.tail = tails + static_cast<std::int64_t>(slot) * (kWidth - 1) * channels;
#pragma unroll
    for (int j = 0; j + 1 < kWidth; ++j) kept.past[j] = *eight_at(kept.tail + j * channels + row);
    return kept;
  }
  __device__ void finish_rows(int row, int column, const Kept& kept, const float (&values)[kRowsAtOnce]) const {
    Eight result;
#pragma unroll
    for (int i = 0; i < 8; ++i) result.x[i] = as_float(as_bf16(values[i]));
    if (row < channels) convolve(kept, row, result);
    *eight_at(y + static_cast<std::int64_t>(column) * stride + row) = result.packed();
  }

 private:
  __device__ static uint4* eight_at(bf16* x) { return reinterpret_cast<uint4*>(x); }
  __device__ static const uint4* eight_at(const bf16* x) { return reinterpret_cast<const uint4*>(x); }
  __device__ void convolve(const Kept& kept, int row, Eight& x) const {
    if (taps != nullptr && kept.tail == nullptr) {
      x = Eight(uint4{});
      return;
    }
    if (taps != nullptr) {
      const uint4 now = x.packed();
      const Eight tap(*eight_at(taps + (kWidth - 1) * channels + row));
#pragma unroll
      for (int i = 0; i < 8; ++i) x.x[i] = tap.x[i] * x.x[i];
#pragma unroll
      for (int j = 0; j + 1 < kWidth; ++j) {
        const Eight old_tap(*eight_at(taps + j * channels + row)), old(kept.past[j]);
#pragma unroll
        for (int i = 0; i < 8; ++i) x.x[i] = fmaf(old_tap.x[i], old.x[i], x.x[i]);
        *eight_at(kept.tail + j * channels + row) = j + 2 < kWidth ? kept.past[j + 1] : now;
      }
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
  bf16* residual;  ///< [R, stride]  place_in_rows
  int stride, rows;

  struct Constant {
    bf16 before[2];
  };
  static constexpr bool kIsFresh = true;  ///< kernels before this one wrote what `constant` reads
  __device__ Constant constant(Place at) const {
    const auto* const from =
        reinterpret_cast<const unsigned short*>(residual + place_in_rows(at.column, at.row, stride));
    return {{{__ldcg(from)}, {__ldcg(from + 8)}}};  // row r + 8 is in the same block of 32
  }
  __device__ void finish(Place at, const Constant& constant, float upper, float lower) const {
    bf16* const to = residual + place_in_rows(at.column, at.row, stride);
    if (at.row < rows) to[0] = as_bf16(as_float(constant.before[0]) + upper);
    if (at.row + 8 < rows) to[8] = as_bf16(as_float(constant.before[1]) + lower);
  }
};

/// y = silu(gate) up, of rows that are 8 gates and 8 ups in turn.
struct SwigluEpilogue {
  bf16* y;  ///< [R, stride]
  int stride;

  struct Constant {};
  static constexpr bool kIsFresh = false;
  __device__ Constant constant(Place) const { return {}; }
  __device__ void finish(Place at, const Constant&, float gate, float up) const {
    const int channel = at.row / 16 * 8 + at.row % 8;
    y[place_in_rows(at.column, channel, stride)] = as_bf16(silu(gate) * up);
  }
  static constexpr int kRowsAtOnce = 16;
  bool takes_rows_at_once() const { return true; }
  struct Kept {};
  __device__ Kept keep(int, int) const { return {}; }
  __device__ void finish_rows(int row, int column, const Kept&, const float (&values)[kRowsAtOnce]) const {
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
  static constexpr bool kIsFresh = false;
  __device__ Constant constant(Place) const { return {}; }
  __device__ void finish(Place at, const Constant&, float upper, float lower) const {
    float* const to = logits + static_cast<std::int64_t>(at.column) * stride + at.row;
    to[0] = upper, to[8] = lower;
  }
  static constexpr int kRowsAtOnce = 8;
  bool takes_rows_at_once() const { return true; }
  struct Kept {};
  __device__ Kept keep(int, int) const { return {}; }
  __device__ void finish_rows(int row, int column, const Kept&, const float (&values)[kRowsAtOnce]) const {
    auto* const to = reinterpret_cast<float4*>(logits + static_cast<std::int64_t>(column) * stride + row);
    to[0] = {values[0], values[1], values[2], values[3]};
    to[1] = {values[4], values[5], values[6], values[7]};
  }
};

}  // namespace comba::model_step::cuda
