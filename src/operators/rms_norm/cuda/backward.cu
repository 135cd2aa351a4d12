#include <cuda_runtime.h>

#include <algorithm>

#include "operators/rms_norm/cuda/rows.cuh"
#include "runtime/cuda_check.h"

/// RMS normalisation, backward: everything is read once and written once, and the gradient of the residual stream,
/// which goes past the norm, is added on the way.
///
/// Grid: kParts blocks for each multiprocessor at most, each going through the rows in steps of the grid. Each thread
/// adds up dweight of its own columns in registers; the block puts its sum into partial_sums, and column_sums adds
/// those. The weight lies in shared memory: D x 4 bytes.
namespace comba::cuda {
namespace {

constexpr std::int64_t kParts = 4;  ///< for each multiprocessor
constexpr int kPlainThreads = 256;

/// Blocks that are on one multiprocessor at once: what registers allow.
template <int kXBytes, class Shape>
constexpr int kResident = Shape::kThreads > 128 ? 1 : (Shape::kVectors == 1 && kXBytes == 2 ? 4 : 3);

/// The sums of a block's groups over their rows, group by group, into its part.
template <class Shape>
__device__ void put_part(const float (&dweight)[Shape::kVectors][8], float* columns, std::int64_t dim, float* part) {
  const int group = static_cast<int>(threadIdx.x) / Shape::kGroup, lane = static_cast<int>(threadIdx.x) % Shape::kGroup;
  for (int turn = 0; turn < Shape::kGroups; ++turn) {
    __syncthreads();
    if (group != turn) continue;
#pragma unroll
    for (int v = 0; v < Shape::kVectors; ++v) {
      const int column = 8 * (v * Shape::kGroup + lane);
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        if (column < dim) columns[column + i] = dweight[v][i] + (turn == 0 ? 0 : columns[column + i]);
      }
    }
  }
  __syncthreads();
  for (std::int64_t i = threadIdx.x; i < dim; i += Shape::kThreads) part[i] = columns[i];
}

template <int kXBytes, int kYBytes, bool kGated, class Shape>
__global__ __launch_bounds__(Shape::kThreads,
                             kResident<kXBytes, Shape>) void backward(const __grid_constant__ RmsNormBackward x) {
  constexpr int kRows = Shape::kRows, kVectors = Shape::kVectors;
  extern __shared__ __align__(16) float weight[];  // [D], and in the end the block's sums
  const int group = static_cast<int>(threadIdx.x) / Shape::kGroup, lane = static_cast<int>(threadIdx.x) % Shape::kGroup;
  const bool is_f16 = x.y_dtype == DType::f16;
  load_weight<Shape>(x.weight, x.weight_dtype, x.dim, weight);
  float dweight[kVectors][8] = {};
  const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * Shape::kRowsPerBlock;
  for (std::int64_t base = static_cast<std::int64_t>(blockIdx.x) * Shape::kRowsPerBlock; base < x.rows; base += step) {
    const std::int64_t first = base + group * kRows;
    Eight<kXBytes> raw[kRows][kVectors], passed[kRows][kVectors];  // x, d_x_new
    Eight<kYBytes> dy[kRows][kVectors], gate[kRows][kVectors];
    float inverse_rms[kRows];
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const bool is_row = first + r < x.rows;
      const std::int64_t row = is_row ? first + r : 0;
      const std::int64_t at = x.x.offset(row), dy_at = x.dy.offset(row);
      const std::int64_t gate_at = kGated ? x.gate.offset(row) : 0;
      const std::int64_t passed_at = !kGated && x.d_x_new.given() ? x.d_x_new.offset(row) : 0;
      inverse_rms[r] = is_row ? x.inverse_rms[row] : 0;
#pragma unroll
      for (int v = 0; v < kVectors; ++v) {
        const int column = 8 * (v * Shape::kGroup + lane);
        const bool is_inside = is_row && column < x.dim;
        raw[r][v] = is_inside ? load_eight<kXBytes>(x.x.data, at + column) : zero_eight<kXBytes>();
        dy[r][v] = is_inside ? load_eight<kYBytes>(x.dy.data, dy_at + column) : zero_eight<kYBytes>();
        if constexpr (kGated) {
          gate[r][v] = is_inside ? load_eight<kYBytes>(x.gate.data, gate_at + column) : zero_eight<kYBytes>();
        } else {
          passed[r][v] = is_inside && x.d_x_new.given() ? load_eight<kXBytes>(x.d_x_new.data, passed_at + column)
                                                        : zero_eight<kXBytes>();
        }
      }
    }
    float along[kRows], opened[kGated ? kRows : 1][kVectors][8];  // dy f(gate): the gate is done with
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      along[r] = 0;
      const bool is_row = first + r < x.rows;
      const std::int64_t dgate_at = kGated && is_row ? x.dgate.offset(first + r) : 0;
#pragma unroll
      for (int v = 0; v < kVectors; ++v) {
        const int column = 8 * (v * Shape::kGroup + lane);
        if (column >= x.dim) continue;
        float normalised[8], d[8];
        to_floats(raw[r][v], is_f16, normalised);
        to_floats(dy[r][v], is_f16, d);
#pragma unroll
        for (int i = 0; i < 8; ++i) normalised[i] *= inverse_rms[r];
        if constexpr (kGated) {
          float values[8], dgate[8];
          to_floats(gate[r][v], is_f16, values);
#pragma unroll
          for (int i = 0; i < 8; ++i) {
            const float s = sigmoid(values[i]);
            dgate[i] = d[i] * weight[column + i] * normalised[i] * opening_derivative(x.function, values[i], s);
            d[i] *= opening(x.function, values[i], s);
            opened[r][v][i] = d[i];
          }
          if (is_row) {
            store_eight<kYBytes>(x.dgate.data, dgate_at + column, from_floats<kYBytes>(dgate, is_f16));
          }
        }
#pragma unroll
        for (int i = 0; i < 8; ++i) {
          dweight[v][i] += d[i] * normalised[i];
          along[r] += d[i] * weight[column + i] * normalised[i];
        }
      }
    }
    sum_over_groups<Shape>(along);
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      if (first + r >= x.rows) continue;
      const float pull = along[r] / static_cast<float>(x.dim) * inverse_rms[r];
      const std::int64_t dx_at = x.dx.offset(first + r);
      const std::int64_t branch_at = x.dbranch.given() ? x.dbranch.offset(first + r) : 0;
#pragma unroll
      for (int v = 0; v < kVectors; ++v) {
        const int column = 8 * (v * Shape::kGroup + lane);
        if (column >= x.dim) continue;
        float values[8], d[8];
        to_floats(raw[r][v], is_f16, values);
        if constexpr (kGated) {
#pragma unroll
          for (int i = 0; i < 8; ++i) d[i] = opened[r][v][i];
        } else {
          to_floats(dy[r][v], is_f16, d);
        }
#pragma unroll
        for (int i = 0; i < 8; ++i) values[i] = (d[i] * weight[column + i] - pull * values[i]) * inverse_rms[r];
        if constexpr (!kGated) {
          float added[8];
          to_floats(passed[r][v], is_f16, added);
#pragma unroll
          for (int i = 0; i < 8; ++i) values[i] += added[i];
        }
        store_eight<kXBytes>(x.dx.data, dx_at + column, from_floats<kXBytes>(values, is_f16));
        if (!kGated && x.dbranch.given()) {
          store_eight<kYBytes>(x.dbranch.data, branch_at + column, from_floats<kYBytes>(values, is_f16));
        }
      }
    }
  }
  put_part<Shape>(dweight, weight, x.dim, x.partial_sums + blockIdx.x * x.dim);
}

/// Any dim, any alignment. A thread has the same columns of every row, so that it alone adds to them in partial_sums.
__global__ __launch_bounds__(kPlainThreads) void backward_plain(const __grid_constant__ RmsNormBackward x) {
  using Shape = RowShape<kPlainThreads, 4>;
  float* part = x.partial_sums + blockIdx.x * x.dim;
  for (std::int64_t i = threadIdx.x; i < x.dim; i += kPlainThreads) part[i] = 0;
  for (std::int64_t row = blockIdx.x; row < x.rows; row += gridDim.x) {
    const float inverse_rms = x.inverse_rms[row];
    const std::int64_t at = x.x.offset(row), dy_at = x.dy.offset(row);
    const std::int64_t gate_at = x.gate.given() ? x.gate.offset(row) : 0;
    const auto gradient_at = [&](std::int64_t i) {
      const float dy = load_one(x.dy.data, x.y_dtype, dy_at + i);
      if (!x.gate.given()) return dy;
      const float gate = load_one(x.gate.data, x.y_dtype, gate_at + i);
      return dy * opening(x.function, gate, sigmoid(gate));
    };
    float along[1] = {0};
    for (std::int64_t i = threadIdx.x; i < x.dim; i += kPlainThreads) {
      const float normalised = load_one(x.x.data, x.x_dtype, at + i) * inverse_rms, d = gradient_at(i);
      part[i] += d * normalised;
      along[0] += d * load_one(x.weight, x.weight_dtype, i) * normalised;
    }
    sum_over_groups<Shape>(along);
    const float pull = along[0] / static_cast<float>(x.dim) * inverse_rms;
    for (std::int64_t i = threadIdx.x; i < x.dim; i += kPlainThreads) {
      const float value = load_one(x.x.data, x.x_dtype, at + i), weight = load_one(x.weight, x.weight_dtype, i);
      float dx = (gradient_at(i) * weight - pull * value) * inverse_rms;
      if (x.gate.given()) {
        const float gate = load_one(x.gate.data, x.y_dtype, gate_at + i),
                    dy = load_one(x.dy.data, x.y_dtype, dy_at + i);
        const float derivative = opening_derivative(x.function, gate, sigmoid(gate));
        store_one(x.dgate.data, x.y_dtype, x.dgate.offset(row) + i, dy * weight * value * inverse_rms * derivative);
      }
      if (x.d_x_new.given()) dx += load_one(x.d_x_new.data, x.x_dtype, x.d_x_new.offset(row) + i);
      store_one(x.dx.data, x.x_dtype, x.dx.offset(row) + i, dx);
      if (x.dbranch.given()) store_one(x.dbranch.data, x.y_dtype, x.dbranch.offset(row) + i, dx);
    }
  }
}

bool is_aligned(const RmsNormBackward& x) {
  const std::int64_t x_bytes = size_of(x.x_dtype), y_bytes = size_of(x.y_dtype);
  return x.dim % 8 == 0 && x.x.is_aligned(x_bytes) && x.d_x_new.is_aligned(x_bytes) && x.dx.is_aligned(x_bytes) &&
         x.dy.is_aligned(y_bytes) && x.gate.is_aligned(y_bytes) && x.dgate.is_aligned(y_bytes) &&
         x.dbranch.is_aligned(y_bytes);
}

/// The number of blocks; 0 where no shape takes the call.
template <int kXBytes, int kYBytes, bool kGated>
std::int64_t launch(const RmsNormBackward& x) {
  std::int64_t parts = 0;
  with_row_shape<kGated>(x.dim, [&](auto shape) {
    using Shape = decltype(shape);
    const std::int64_t blocks = (x.rows + Shape::kRowsPerBlock - 1) / Shape::kRowsPerBlock;
    parts = std::min(blocks, num_multiprocessors() * kResident<kXBytes, Shape>);
    backward<kXBytes, kYBytes, kGated, Shape>
        <<<static_cast<unsigned>(parts), Shape::kThreads, x.dim * sizeof(float), x.stream>>>(x);
  });
  return parts;
}

std::int64_t launch_shaped(const RmsNormBackward& x) {
  if (!is_aligned(x)) return 0;
  const bool is_wide = x.x_dtype == DType::f32, reads_wide = x.y_dtype == DType::f32;
  if (x.gate.given()) {
    if (is_wide != reads_wide || x.d_x_new.given()) return 0;
    return is_wide ? launch<4, 4, true>(x) : launch<2, 2, true>(x);
  }
  if (!is_wide) return launch<2, 2, false>(x);
  return reads_wide ? launch<4, 4, false>(x) : launch<4, 2, false>(x);
}

}  // namespace

std::int64_t rms_norm_num_parts() { return num_multiprocessors() * kParts; }

void rms_norm_backward(const RmsNormBackward& args) {
  std::int64_t parts = args.rows == 0 ? 0 : launch_shaped(args);
  if (parts == 0 && args.rows > 0) {
    parts = std::min(args.rows, rms_norm_num_parts());
    backward_plain<<<static_cast<unsigned>(parts), kPlainThreads, 0, args.stream>>>(args);
  }
  check_cuda(cudaGetLastError(), "the launch of rms_norm's backward");
  queue_column_sums(args.partial_sums, parts, args.dim, args.dweight, args.weight_dtype, args.stream);
}

}  // namespace comba::cuda
