#include <cuda_runtime.h>

#include "operators/cuda/eight.cuh"
#include "operators/cuda/launch.h"
#include "runtime/cuda_check.h"

/// The last step of a gradient that all rows share: sums of what the blocks have added up.
///
/// Grid: one block for 32 columns; thread (i, j) adds parts j, j + 32, .. of column i, then a tree over j.
namespace comba::cuda {
namespace {

constexpr int kSide = 32;

__global__ __launch_bounds__(kSide* kSide) void column_sums(const float* parts, std::int64_t num_parts,
                                                            std::int64_t columns, void* sums, DType dtype) {
  __shared__ float tile[kSide][kSide + 1];
  const std::int64_t column = static_cast<std::int64_t>(blockIdx.x) * kSide + threadIdx.x;
  float sum = 0;
  if (column < columns) {
#pragma unroll 4
    for (std::int64_t part = threadIdx.y; part < num_parts; part += kSide) sum += parts[part * columns + column];
  }
  tile[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  const float total = group_sum<kSide>(tile[threadIdx.x][threadIdx.y]);
  const std::int64_t own = static_cast<std::int64_t>(blockIdx.x) * kSide + threadIdx.y;
  if (threadIdx.x == 0 && own < columns) store_one(sums, dtype, own, total);
}

}  // namespace

bool has_layer_kernels() { return true; }

void queue_column_sums(const float* parts, std::int64_t num_parts, std::int64_t columns, void* sums, DType dtype,
                       CUstream_st* stream) {
  if (columns == 0) return;
  const auto blocks = static_cast<unsigned>((columns + kSide - 1) / kSide);
  column_sums<<<blocks, dim3(kSide, kSide), 0, stream>>>(parts, num_parts, columns, sums, dtype);
  check_cuda(cudaGetLastError(), "the launch of column sums");
}

std::int64_t num_multiprocessors() {
  int device = 0, count = 0;
  check_cuda(cudaGetDevice(&device), "cudaGetDevice");
  check_cuda(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device), "cudaDeviceGetAttribute");
  return count;
}

}  // namespace comba::cuda
