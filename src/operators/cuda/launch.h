#pragma once

#include <cstdint>

#include "comba/dtype.h"

struct CUstream_st;

/// What the layers' kernels are told of their tensors.
namespace comba::cuda {

/// Rows of a tensor whose last dimension is dense: row r begins at element
/// (r / inner) outer_stride + (r % inner) inner_stride, so that heads of columns of a projection are rows too. There
/// are fewer than 2^32 rows.
template <class Void>
struct BasicRows {
  Void* data = nullptr;
  std::int64_t inner = 1, outer_stride = 0, inner_stride = 0;

#ifdef __CUDACC__
  __host__ __device__
#endif
      bool
      given() const {
    return data != nullptr;
  }
  /// Whether every row begins at a multiple of 16 bytes.
  bool is_aligned(std::int64_t element_bytes) const {
    const auto bits = reinterpret_cast<std::uintptr_t>(data) |
                      static_cast<std::uintptr_t>(outer_stride * element_bytes) |
                      static_cast<std::uintptr_t>(inner_stride * element_bytes);
    return bits % 16 == 0;
  }
#ifdef __CUDACC__
  __device__ std::int64_t offset(std::int64_t row) const {
    if (inner == 1) return row * outer_stride;
    const std::int64_t outer = static_cast<std::uint32_t>(row) / static_cast<std::uint32_t>(inner);
    return outer * outer_stride + (row - outer * inner) * inner_stride;
  }
#endif
};
using Rows = BasicRows<void>;
using ConstRows = BasicRows<const void>;

template <class Void>
BasicRows<Void> dense_rows(Void* data, std::int64_t dim) {
  return {data, 1, dim, dim};
}

/// Whether this build has these kernels.
bool has_layer_kernels();

/// sums[c] = sum over p of parts[p, c], in a fixed order.  parts [num_parts, columns] f32 -> [columns] of any float
/// dtype
void queue_column_sums(const float* parts, std::int64_t num_parts, std::int64_t columns, void* sums, DType dtype,
                       CUstream_st* stream);

/// Multiprocessors of the current device: where partial sums are kept by blocks, results are the same on every device
/// of as many.
std::int64_t num_multiprocessors();

}  // namespace comba::cuda
