#pragma once

#include "operators/cuda/eight.cuh"
#include "operators/rms_norm/cuda/rms_norm.h"

/// How rows are shared out: kGroup threads hold one row, kVectors times eight elements each, and take kRows rows at a
/// time, so that each thread has four loads of 16 bytes in flight for each 16-bit tensor.
///
///     element 8 (v kGroup + lane) + i of a row   <->   lane of the group, vector v, place i
namespace comba::cuda {

template <int kGroup_, int kVectors_>
struct RowShape {
  static constexpr int kGroup = kGroup_, kVectors = kVectors_;
  static constexpr int kRows = 4 / kVectors;
  static constexpr int kThreads = kGroup > 128 ? kGroup : 128;
  static constexpr int kGroups = kThreads / kGroup;
  static constexpr int kRowsPerBlock = kGroups * kRows;
  static constexpr std::int64_t kLargestDim = 8 * kGroup * kVectors;
};
using HeadsOf64 = RowShape<8, 1>;
using HeadsOf128 = RowShape<16, 1>;
using HeadsOf256 = RowShape<32, 1>;
using RowsOf1024 = RowShape<32, 4>;
using RowsOf2048 = RowShape<64, 4>;
using RowsOf4096 = RowShape<128, 4>;
using RowsOf8192 = RowShape<256, 4>;

/// The weight in shared memory, in fp32, by all threads of the block.
template <class Shape>
__device__ void load_weight(const void* weight, DType dtype, std::int64_t dim, float* shared) {
  for (int i = static_cast<int>(threadIdx.x); i < dim; i += Shape::kThreads) shared[i] = load_one(weight, dtype, i);
  __syncthreads();
}

/// Sums of kRows numbers over each group, for all of its threads. All threads of the block take part.
template <class Shape>
__device__ void sum_over_groups(float (&sums)[Shape::kRows]) {
  constexpr int kLanes = Shape::kGroup < 32 ? Shape::kGroup : 32;
#pragma unroll
  for (int r = 0; r < Shape::kRows; ++r) sums[r] = group_sum<kLanes>(sums[r]);
  if constexpr (Shape::kGroup > 32) {
    constexpr int kWarps = Shape::kGroup / 32;
    static_assert(Shape::kRows == 1);
    __shared__ float of_warps[Shape::kThreads / 32];
    __syncthreads();  // those of the last call have been read
    if (threadIdx.x % 32 == 0) of_warps[threadIdx.x / 32] = sums[0];
    __syncthreads();
    sums[0] = 0;
#pragma unroll
    for (int warp = 0; warp < kWarps; ++warp) sums[0] += of_warps[threadIdx.x / Shape::kGroup * kWarps + warp];
  }
}

inline __device__ float opening(GateFunction function, float gate, float s) {
  return function == GateFunction::sigmoid ? s : gate * s;
}

inline __device__ float opening_derivative(GateFunction function, float gate, float s) {
  return function == GateFunction::sigmoid ? s * (1 - s) : silu_derivative(gate, s);
}

/// Calls launch(shape) with the smallest shape that holds rows of `dim` elements; false when there is none.
/// Gates are those of heads: larger rows with a gate are left to the kernel that takes any.
template <bool kGated, class Launch>
bool with_row_shape(std::int64_t dim, const Launch& launch) {
  if (dim <= HeadsOf64::kLargestDim) return launch(HeadsOf64()), true;
  if (dim <= HeadsOf128::kLargestDim) return launch(HeadsOf128()), true;
  if (dim <= HeadsOf256::kLargestDim) return launch(HeadsOf256()), true;
  if (dim <= RowsOf1024::kLargestDim) return launch(RowsOf1024()), true;
  if constexpr (!kGated) {
    if (dim <= RowsOf2048::kLargestDim) return launch(RowsOf2048()), true;
    if (dim <= RowsOf4096::kLargestDim) return launch(RowsOf4096()), true;
    if (dim <= RowsOf8192::kLargestDim) return launch(RowsOf8192()), true;
  }
  return false;
}

}  // namespace comba::cuda
