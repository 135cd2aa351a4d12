#pragma once

#include "operators/model_step/cuda/bf16.cuh"
#include "operators/model_step/model_step.h"

/// What goes into a product: columns of activations, `place_in_rows` of memory at `x`. A warp takes what is from place
/// `at` of a column on; where kMore is 1, `queue` fetches what else it needs of it, which `begin` gets; `transform`
/// makes of 8 numbers at place k those that are multiplied.
namespace comba::model_step::cuda {

struct PlainInput {
  static constexpr int kMore = 0;
  static constexpr bool kSumsSquares = false;
  const bf16* x;
  int stride;

  struct Column {
    unsigned at;
  };
  __device__ Column column(int tile, int row, int) const { return {place_of_row(tile, row, stride)}; }
  __device__ uint4 transform(Column&, const uint4& raw, int) const { return raw; }
  __device__ float scale(float) const { return 1; }
};

/// RMSNorm(x), whose weight is part of the matrix: 1 / rms, one number a column, multiplies the result.
struct NormInput {
  static constexpr int kMore = 0;
  static constexpr bool kSumsSquares = true;
  const bf16* x;
  int stride;
  float inverse_width, eps;

  struct Column {
    unsigned at;
    float squares;
  };
  __device__ Column column(int tile, int row, int) const { return {place_of_row(tile, row, stride), 0}; }
  __device__ uint4 transform(Column& column, const uint4& raw, int) const {
    const auto add = [&](unsigned pair) {
      column.squares = fmaf(low(pair), low(pair), column.squares);
      column.squares = fmaf(high(pair), high(pair), column.squares);
    };
    add(raw.x), add(raw.y), add(raw.z), add(raw.w);
    return raw;
  }
  __device__ float scale(float squares) const { return rsqrtf(fmaf(squares, inverse_width, eps)); }
};

/// Parts of the sum of squares of a head, one for each slice of its values; those it has not are zero.
inline constexpr int kSlices = 16;

/// What the states gave, times gate and norm weight; each head is still to be divided by its rms.
struct HeadNormInput {
  static constexpr int kMore = 1;
  static constexpr bool kSumsSquares = false;
  const bf16* x;  ///< [R, stride]
  int stride;
  const float* squares;  ///< [R, heads, kSlices]
  int heads, head_width;
  float inverse_width, eps;

  struct Column {
    unsigned at;
    const float* squares;
    int head;
    float inverse_rms;
  };
  __device__ Column column(int tile, int row, int k) const {
    const std::int64_t index = static_cast<std::int64_t>(tile) * 8 + row;
    return {place_of_row(tile, row, stride), squares + index * heads * kSlices, head_of(k), 0};
  }
  /// The four lanes of a column sum up its first head together.
  __device__ void queue(const Column& column, uint4& to) const {
    copy_async(to, quarter(column, static_cast<int>(threadIdx.x) % 4));
  }
  __device__ void begin(Column& column, const uint4& from) const {
    float sum = sum_of(*reinterpret_cast<const float4*>(&from));
    sum += __shfl_xor_sync(~0u, sum, 1);
    sum += __shfl_xor_sync(~0u, sum, 2);
    column.inverse_rms = inverse_rms(sum);
  }
  __device__ uint4 transform(Column& column, const uint4& raw, int k) const {
    if (head_of(k) != column.head) {
      column.head = head_of(k);
      float sums[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) sums[i] = sum_of(__ldcg(quarter(column, i)));
      column.inverse_rms = inverse_rms((sums[0] + sums[1]) + (sums[2] + sums[3]));
    }
    const auto scaled = [&](unsigned pair) {
      return pack(low(pair) * column.inverse_rms, high(pair) * column.inverse_rms);
    };
    return {scaled(raw.x), scaled(raw.y), scaled(raw.z), scaled(raw.w)};
  }
  __device__ float scale(float) const { return 1; }

 private:
  __device__ int head_of(int k) const { return min(k / head_width, heads - 1); }  // the last: padding behind it
  __device__ const float4* quarter(const Column& column, int number) const {
    return reinterpret_cast<const float4*>(column.squares + column.head * kSlices) + number;
  }
  __device__ static float sum_of(const float4& x) { return (x.x + x.y) + (x.z + x.w); }
  __device__ float inverse_rms(float sum) const { return rsqrtf(fmaf(sum, inverse_width, eps)); }
};

}  // namespace comba::model_step::cuda
