#include <cuda_runtime.h>

#include <algorithm>

#include "operators/rms_norm/cuda/rows.cuh"
#include "runtime/cuda_check.h"

/// RMS normalisation, forward: everything is read once and written once.
///
/// Grid: as many blocks as fit the GPU at once, each going through the rows in steps of the grid. The weight lies in
/// shared memory, D x 4 bytes, so that registers are left for more rows on the way. Rows that are not aligned to 16
/// bytes, or longer than any shape, are left to a plain kernel of one row a block.
namespace comba::cuda {
namespace {

constexpr std::int64_t kBlocksPerMultiprocessor = 4;
constexpr int kPlainThreads = 256;

/// Threads on one multiprocessor at once: what registers allow.
template <int kXBytes>
constexpr int kResidentThreads = kXBytes == 2 ? 1024 : 768;

template <int kXBytes, int kYBytes, bool kGated, class Shape>
__global__ __launch_bounds__(Shape::kThreads,
                             kResidentThreads<kXBytes> /
                                 Shape::kThreads) void forward(const __grid_constant__ RmsNormForward x) {
  constexpr int kRows = Shape::kRows, kVectors = Shape::kVectors;
  extern __shared__ __align__(16) float weight[];  // [D]
  const int group = static_cast<int>(threadIdx.x) / Shape::kGroup, lane = static_cast<int>(threadIdx.x) % Shape::kGroup;
  const bool is_f16 = x.y_dtype == DType::f16;
  load_weight<Shape>(x.weight, x.weight_dtype, x.dim, weight);
  const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * Shape::kRowsPerBlock;
  for (std::int64_t base = static_cast<std::int64_t>(blockIdx.x) * Shape::kRowsPerBlock; base < x.rows; base += step) {
    const std::int64_t first = base + group * kRows;
    Eight<kXBytes> raw[kRows][kVectors];
    Eight<kYBytes> beside[kRows][kVectors];  // the gate or the branch
    const ConstRows& other = kGated ? x.gate : x.branch;
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const bool is_row = first + r < x.rows;
      const std::int64_t at = is_row ? x.x.offset(first + r) : 0;
      const std::int64_t other_at = is_row && other.given() ? other.offset(first + r) : 0;
#pragma unroll
      for (int v = 0; v < kVectors; ++v) {
        const int column = 8 * (v * Shape::kGroup + lane);
        const bool is_inside = is_row && column < x.dim;
        raw[r][v] = is_inside ? load_eight<kXBytes>(x.x.data, at + column) : zero_eight<kXBytes>();
        beside[r][v] =
            is_inside && other.given() ? load_eight<kYBytes>(other.data, other_at + column) : zero_eight<kYBytes>();
      }
    }
    if (!kGated && x.branch.given()) {
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        const std::int64_t at = first + r < x.rows ? x.x_new.offset(first + r) : 0;
#pragma unroll
        for (int v = 0; v < kVectors; ++v) {
          float values[8], added[8];
          to_floats(raw[r][v], is_f16, values);
          to_floats(beside[r][v], is_f16, added);
#pragma unroll
          for (int i = 0; i < 8; ++i) values[i] += added[i];
          raw[r][v] = from_floats<kXBytes>(values, is_f16);
          const int column = 8 * (v * Shape::kGroup + lane);
          if (first + r < x.rows && column < x.dim) store_eight<kXBytes>(x.x_new.data, at + column, raw[r][v]);
        }
      }
    }
    float sums[kRows];
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      sums[r] = 0;
#pragma unroll
      for (int v = 0; v < kVectors; ++v) {
        float values[8];
        to_floats(raw[r][v], is_f16, values);
#pragma unroll
        for (int i = 0; i < 8; ++i) sums[r] += values[i] * values[i];
      }
    }
    sum_over_groups<Shape>(sums);
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      if (first + r >= x.rows) continue;
      const float inverse_rms = 1 / sqrtf(sums[r] / static_cast<float>(x.dim) + x.eps);
      if (lane == 0) x.inverse_rms[first + r] = inverse_rms;
      const std::int64_t at = x.y.offset(first + r);
#pragma unroll
      for (int v = 0; v < kVectors; ++v) {
        const int column = 8 * (v * Shape::kGroup + lane);
        if (column >= x.dim) continue;
        float values[8];
        to_floats(raw[r][v], is_f16, values);
#pragma unroll
        for (int i = 0; i < 8; ++i) values[i] *= inverse_rms * weight[column + i];
        if constexpr (kGated) {
          float gate[8];
          to_floats(beside[r][v], is_f16, gate);
#pragma unroll
          for (int i = 0; i < 8; ++i) values[i] *= opening(x.function, gate[i], sigmoid(gate[i]));
        }
        store_eight<kYBytes>(x.y.data, at + column, from_floats<kYBytes>(values, is_f16));
      }
    }
  }
}

/// Any dim, any alignment.
__global__ __launch_bounds__(kPlainThreads) void forward_plain(const __grid_constant__ RmsNormForward x) {
  using Shape = RowShape<kPlainThreads, 4>;
  for (std::int64_t row = blockIdx.x; row < x.rows; row += gridDim.x) {
    const std::int64_t at = x.x.offset(row), y_at = x.y.offset(row);
    const std::int64_t branch_at = x.branch.given() ? x.branch.offset(row) : 0;
    const std::int64_t new_at = x.branch.given() ? x.x_new.offset(row) : 0;
    const std::int64_t gate_at = x.gate.given() ? x.gate.offset(row) : 0;
    // What this thread stores it alone reads again.
    const auto value_at = [&](std::int64_t i) {
      const float value = load_one(x.x.data, x.x_dtype, at + i);
      if (!x.branch.given()) return value;
      return rounded(value + load_one(x.branch.data, x.y_dtype, branch_at + i), x.x_dtype);
    };
    float sums[1] = {0};
    for (std::int64_t i = threadIdx.x; i < x.dim; i += kPlainThreads) {
      const float value = value_at(i);
      sums[0] += value * value;
    }
    sum_over_groups<Shape>(sums);
    const float inverse_rms = 1 / sqrtf(sums[0] / static_cast<float>(x.dim) + x.eps);
    if (threadIdx.x == 0) x.inverse_rms[row] = inverse_rms;
    for (std::int64_t i = threadIdx.x; i < x.dim; i += kPlainThreads) {
      const float value = value_at(i);
      if (x.branch.given()) store_one(x.x_new.data, x.x_dtype, new_at + i, value);
      float y = value * inverse_rms * load_one(x.weight, x.weight_dtype, i);
      if (x.gate.given()) {
        const float gate = load_one(x.gate.data, x.y_dtype, gate_at + i);
        y *= opening(x.function, gate, sigmoid(gate));
      }
      store_one(x.y.data, x.y_dtype, y_at + i, y);
    }
  }
}

bool is_aligned(const RmsNormForward& x) {
  const std::int64_t x_bytes = size_of(x.x_dtype), y_bytes = size_of(x.y_dtype);
  return x.dim % 8 == 0 && x.x.is_aligned(x_bytes) && x.branch.is_aligned(y_bytes) && x.gate.is_aligned(y_bytes) &&
         x.x_new.is_aligned(x_bytes) && x.y.is_aligned(y_bytes);
}

template <int kXBytes, int kYBytes, bool kGated>
bool launch(const RmsNormForward& x) {
  return with_row_shape<kGated>(x.dim, [&](auto shape) {
    using Shape = decltype(shape);
    const std::int64_t blocks = (x.rows + Shape::kRowsPerBlock - 1) / Shape::kRowsPerBlock;
    const std::int64_t most = num_multiprocessors() * (kResidentThreads<kXBytes> / Shape::kThreads);
    forward<kXBytes, kYBytes, kGated, Shape>
        <<<static_cast<unsigned>(std::min(blocks, most)), Shape::kThreads, x.dim * sizeof(float), x.stream>>>(x);
  });
}

bool launch_shaped(const RmsNormForward& x) {
  if (!is_aligned(x)) return false;
  const bool is_wide = x.x_dtype == DType::f32, writes_wide = x.y_dtype == DType::f32;
  if (x.gate.given()) {
    if (is_wide != writes_wide) return false;
    return is_wide ? launch<4, 4, true>(x) : launch<2, 2, true>(x);
  }
  if (!is_wide) return launch<2, 2, false>(x);
  return writes_wide ? launch<4, 4, false>(x) : launch<4, 2, false>(x);
}

}  // namespace

void rms_norm_forward(const RmsNormForward& args) {
  if (args.rows == 0) return;
  if (!launch_shaped(args)) {
    const std::int64_t blocks = std::min(args.rows, num_multiprocessors() * kBlocksPerMultiprocessor);
    forward_plain<<<static_cast<unsigned>(blocks), kPlainThreads, 0, args.stream>>>(args);
  }
  check_cuda(cudaGetLastError(), "the launch of rms_norm");
}

}  // namespace comba::cuda
