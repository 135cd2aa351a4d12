#include "operators/cross_entropy/cuda/cross_entropy.h"

#include <cuda_runtime.h>

#include <cmath>

#include "operators/cuda/eight.cuh"
#include "runtime/cuda_check.h"

/// Softmax cross entropy and its gradient in one kernel.
///
/// Grid: one block a row, two of them on a multiprocessor: while one waits for its sums the other moves memory. Up to
/// 32768 columns the row stays in registers, so that it is read once and written once; longer rows are read twice, the
/// second time mostly from the L2 cache. Numerics: fp32, the row's maximum subtracted.
namespace comba::cuda {
namespace {

enum class Reduction { max, sum };

/// Over all threads of the block, for all of them, in a fixed order. `scratch` has 32 places.
template <int kThreads, Reduction kReduction>
__device__ float reduce(float x, float* scratch) {
  const auto joined = [](float a, float b) { return kReduction == Reduction::max ? fmaxf(a, b) : a + b; };
#pragma unroll
  for (int lane = 16; lane > 0; lane /= 2) x = joined(x, __shfl_xor_sync(~0u, x, lane));
  __syncthreads();  // what another reduction left has been read
  if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = x;
  __syncthreads();
  x = scratch[0];
  for (int warp = 1; warp < kThreads / 32; ++warp) x = joined(x, scratch[warp]);
  return x;
}

/// x - max in units of the power of two, so that exp(x - max) = 2^of(x): one operation.
struct Exponent {
  float shift;

  __device__ explicit Exponent(float max) : shift(max * kLog2E) {}
  __device__ float exp(float x) const { return exp2_approx(fmaf(x, kLog2E, -shift)); }

  static constexpr float kLog2E = 1.4426950408889634f;
};

/// What the gradient of a row is computed from.
struct RowStatistics {
  Exponent exponent;
  float factor;  ///< softmax times scale = exp(x - max) factor
  float scale;
  int target;

  /// The gradient of eight columns from their logits. Padding gets some number.
  __device__ void gradient(int column, float (&x)[8]) const {
#pragma unroll
    for (int i = 0; i < 8; ++i) x[i] = exponent.exp(x[i]) * factor;
    if (static_cast<unsigned>(target - column) >= 8) return;
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      if (column + i == target) x[i] -= scale;
    }
  }
};

/// Writes the row's loss, by one thread, and says what its gradient needs.
__device__ RowStatistics finish_row(const CrossEntropy& x, std::int64_t row, float max, float sum) {
  const std::int64_t target = x.targets[row];
  const bool is_ignored = target == kIgnoredTarget;
  const bool is_column = target >= 0 && target < x.columns;
  float scale = x.scale != nullptr ? *x.scale : 0;
  if (is_ignored) scale = 0;
  if (!is_ignored && !is_column) scale = NAN;
  if (threadIdx.x == 0) {
    const float at_target = is_column ? load_one(x.logits, x.dtype, row * x.row_stride + target) : NAN;
    x.losses[row] = is_ignored ? 0 : logf(sum) + (max - at_target);
  }
  if (x.scale != nullptr) __syncthreads();  // the logit of the target has been read
  return {Exponent(max), scale / sum, scale, is_column ? static_cast<int>(target) : -1};
}

__device__ void mask_padding(int column, int columns, float (&x)[8]) {
  if (column + 8 <= columns) return;
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    if (column + i >= columns) x[i] = -INFINITY;
  }
}

template <int kBytes, int kThreads, int kVectors>
__global__ __launch_bounds__(kThreads, kBytes == 2 ? 1024 / kThreads : 512 / kThreads) void row_in_registers(
    const __grid_constant__ CrossEntropy x) {
  __shared__ float scratch[32];
  const std::int64_t row = blockIdx.x, at = row * x.row_stride;
  const bool is_f16 = x.dtype == DType::f16;
  const int columns = static_cast<int>(x.columns);
  Eight<kBytes> raw[kVectors];
#pragma unroll
  for (int v = 0; v < kVectors; ++v) {
    const int column = 8 * (v * kThreads + static_cast<int>(threadIdx.x));
    if (column < columns) raw[v] = load_eight<kBytes>(x.logits, at + column);
  }
  const auto for_each_vector = [&](const auto& visit) {
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      const int column = 8 * (v * kThreads + static_cast<int>(threadIdx.x));
      if (column >= columns) continue;
      float values[8];
      to_floats(raw[v], is_f16, values);
      visit(column, values);
    }
  };
  float max = -INFINITY;
  for_each_vector([&](int column, float(&values)[8]) {
    mask_padding(column, columns, values);
#pragma unroll
    for (int i = 0; i < 8; ++i) max = fmaxf(max, values[i]);
  });
  max = reduce<kThreads, Reduction::max>(max, scratch);
  float sum = 0;
  const Exponent exponent(max);
  for_each_vector([&](int column, float(&values)[8]) {
    mask_padding(column, columns, values);
#pragma unroll
    for (int i = 0; i < 8; ++i) sum += exponent.exp(values[i]);
  });
  sum = reduce<kThreads, Reduction::sum>(sum, scratch);
  const RowStatistics statistics = finish_row(x, row, max, sum);
  if (x.scale == nullptr) return;
  for_each_vector([&](int column, float(&values)[8]) {
    statistics.gradient(column, values);
    store_eight<kBytes>(x.logits, at + column, from_floats<kBytes>(values, is_f16));
  });
}

/// The sum so far follows the maximum so far: each new maximum scales it down.
template <int kBytes, int kThreads>
__global__ __launch_bounds__(kThreads) void row_read_twice(const __grid_constant__ CrossEntropy x) {
  __shared__ float scratch[32];
  const std::int64_t row = blockIdx.x, at = row * x.row_stride;
  const bool is_f16 = x.dtype == DType::f16;
  const int columns = static_cast<int>(x.columns);
  float max = -INFINITY, sum = 0;
#pragma unroll 4
  for (int column = 8 * static_cast<int>(threadIdx.x); column < columns; column += 8 * kThreads) {
    float values[8];
    to_floats(load_eight<kBytes>(x.logits, at + column), is_f16, values);
    mask_padding(column, columns, values);
    float larger = max;
#pragma unroll
    for (int i = 0; i < 8; ++i) larger = fmaxf(larger, values[i]);
    if (larger == -INFINITY) continue;
    sum *= __expf(max - larger);
    max = larger;
    const Exponent exponent(max);
#pragma unroll
    for (int i = 0; i < 8; ++i) sum += exponent.exp(values[i]);
  }
  const float of_row = reduce<kThreads, Reduction::max>(max, scratch);
  sum = reduce<kThreads, Reduction::sum>(max == -INFINITY ? sum : sum * __expf(max - of_row), scratch);
  const RowStatistics statistics = finish_row(x, row, of_row, sum);
  if (x.scale == nullptr) return;
#pragma unroll 4
  for (int column = 8 * static_cast<int>(threadIdx.x); column < columns; column += 8 * kThreads) {
    float values[8];
    to_floats(load_eight<kBytes>(x.logits, at + column), is_f16, values);
    statistics.gradient(column, values);
    store_eight<kBytes>(x.logits, at + column, from_floats<kBytes>(values, is_f16));
  }
}

template <int kBytes>
void launch(const CrossEntropy& x) {
  const auto blocks = static_cast<unsigned>(x.rows);
  if (x.columns <= 1024) {
    row_in_registers<kBytes, 128, 1><<<blocks, 128, 0, x.stream>>>(x);
  } else if (x.columns <= 8192) {
    row_in_registers<kBytes, 256, 4><<<blocks, 256, 0, x.stream>>>(x);
  } else if (x.columns <= 32768) {
    row_in_registers<kBytes, 512, 8><<<blocks, 512, 0, x.stream>>>(x);
  } else {
    row_read_twice<kBytes, 1024><<<blocks, 1024, 0, x.stream>>>(x);
  }
}

}  // namespace

void cross_entropy(const CrossEntropy& args) {
  if (args.rows == 0) return;
  require(args.columns < (std::int64_t{1} << 30), ErrorCode::unsupported,
          "[cross_entropy] there must be fewer than 2^30 columns; got ", args.columns);
  size_of(args.dtype) == 2 ? launch<2>(args) : launch<4>(args);
  check_cuda(cudaGetLastError(), "the launch of cross_entropy");
}

}  // namespace comba::cuda
