#include "operators/delta_rule/cuda/borders.h"

#include <algorithm>

#include "runtime/cuda_check.h"

namespace comba::delta_rule::cuda {
namespace {

static_assert(sizeof(BrokenBorder) <= kStatusBytes);

constexpr int kThreads = 256;
constexpr int kBlocks = 32;  ///< enough to fill results with NaN, few enough to be gone at once where all is right

struct Result {
  void* data;
  DType dtype;
  int rank;
  std::int64_t sizes[View::kMaxRank], strides[View::kMaxRank];
};

/// Those of a call: of a backward pass at most 13.
struct Results {
  Result list[13];
  int count = 0;

  void add(const View& view) {
    Result& result = list[count++];
    result = {view.data, view.dtype, view.rank, {}, {}};
    std::copy(view.sizes.begin(), view.sizes.end(), result.sizes);
    std::copy(view.strides.begin(), view.strides.end(), result.strides);
  }
};

struct Borders {
  const void* data;
  bool are_i64;
  std::int64_t N, T;

  __device__ std::int64_t at(std::int64_t n) const {
    return are_i64 ? static_cast<const std::int64_t*>(data)[n] : static_cast<const std::int32_t*>(data)[n];
  }
  __device__ BrokenBorder check(std::int64_t n) const {
    const std::int64_t before = n > 0 ? at(n - 1) : 0, border = at(n);
    return {broken_rule(n, before, border, N, T), n, before, border};
  }
};

/// NaN in every element, by all threads of the grid.
__device__ void fill_with_nan(const Result& result) {
  std::int64_t count = 1;
  for (int i = 0; i < result.rank; ++i) count *= result.sizes[i];
  for (std::int64_t number = blockIdx.x * kThreads + threadIdx.x; number < count; number += kBlocks * kThreads) {
    std::int64_t rest = number, offset = 0;
    for (int i = result.rank - 1; i >= 0; --i) {
      offset += rest % result.sizes[i] * result.strides[i];
      rest /= result.sizes[i];
    }
    if (result.dtype == DType::f32) {
      static_cast<std::uint32_t*>(result.data)[offset] = 0x7fc00000;
    } else {
      static_cast<std::uint16_t*>(result.data)[offset] = result.dtype == DType::bf16 ? 0x7fc0 : 0x7e00;
    }
  }
}

/// Every block looks at all borders, so that none has to wait for another; the first one reports.
__global__ __launch_bounds__(kThreads) void check_borders(const Borders borders,
                                                          const __grid_constant__ Results results,
                                                          BrokenBorder* status) {
  std::int64_t broken = -1;
  for (std::int64_t n = threadIdx.x; n <= borders.N && broken < 0; n += kThreads) {
    if (borders.check(n).rule != BorderRule::holds) broken = n;
  }
  const bool reports = blockIdx.x == 0 && threadIdx.x == 0;
  if (__syncthreads_and(broken < 0)) {
    if (reports) *status = BrokenBorder{};
    return;
  }
  __shared__ unsigned long long first;
  if (threadIdx.x == 0) first = ~0ull;
  __syncthreads();
  if (broken >= 0) atomicMin(&first, static_cast<unsigned long long>(broken));
  __syncthreads();
  if (reports) *status = borders.check(static_cast<std::int64_t>(first));
  for (int i = 0; i < results.count; ++i) fill_with_nan(results.list[i]);
}

}  // namespace

void queue_border_check(const Problem& x, std::initializer_list<View> results, void* status) {
  Results given;
  for (const View& view : results) {
    if (view.given() && !view.empty()) given.add(view);
  }
  const ConstView& cu = x.in.cu_seqlens;
  const Borders borders = {cu.data, cu.dtype == DType::i64, x.N, x.T};
  check_borders<<<kBlocks, kThreads, 0, x.execution.stream>>>(borders, given, static_cast<BrokenBorder*>(status));
  check_cuda(cudaGetLastError(), "the launch of a look at cu_seqlens");
}

BrokenBorder read_border_check(const Execution& execution, const void* status) {
  cudaStreamCaptureStatus capture = cudaStreamCaptureStatusNone;
  check_cuda(cudaStreamIsCapturing(execution.stream, &capture), "cudaStreamIsCapturing");
  require(capture == cudaStreamCaptureStatusNone, ErrorCode::invalid_argument,
          "[check_borders] nobody can wait for a stream that is being captured: ask after the graph has run");
  BrokenBorder found;
  check_cuda(cudaMemcpyAsync(&found, status, sizeof found, cudaMemcpyDeviceToHost, execution.stream),
             "cudaMemcpyAsync");
  check_cuda(cudaStreamSynchronize(execution.stream), "cudaStreamSynchronize");
  return found;
}

}  // namespace comba::delta_rule::cuda
