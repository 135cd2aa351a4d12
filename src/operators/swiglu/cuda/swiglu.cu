#include "operators/swiglu/cuda/swiglu.h"

#include <cuda_runtime.h>

#include <type_traits>

#include "operators/cuda/eight.cuh"
#include "runtime/cuda_check.h"

/// SwiGLU, forward and backward: everything is read once and written once.
///
/// Grid: one block for kEach x 256 groups of eight elements of all rows; thread i of it has groups i, i + 256, ..., all
/// of whose loads are in flight at once. Where rows are not aligned to 16 bytes the groups are single elements.
namespace comba::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kEach = 4;

/// Where a group of elements lies.
struct Place {
  std::int64_t row;
  int column;
  bool is_inside;
};

template <int kWidth>
__device__ Place place_of(int turn, std::int64_t rows, int groups_per_row) {
  const std::int64_t number = (static_cast<std::int64_t>(blockIdx.x) * kEach + turn) * kThreads + threadIdx.x;
  // Below 2^32 groups, and there are no tensors of more, a division of 32 bits.
  const std::int64_t row = static_cast<std::uint32_t>(number) / static_cast<std::uint32_t>(groups_per_row);
  const int column = static_cast<int>(number - row * groups_per_row) * kWidth;
  return {row, column, row < rows};
}

template <int kBytes, int kWidth>
__device__ void load(const ConstRows& from, const Place& place, DType dtype, Eight<kBytes>& raw) {
  raw = zero_eight<kBytes>();
  if (!place.is_inside) return;
  const std::int64_t at = from.offset(place.row) + place.column;
  if constexpr (kWidth == 8) {
    raw = load_eight<kBytes>(from.data, at);
  } else {
    float values[8] = {load_one(from.data, dtype, at)};
    raw = from_floats<kBytes>(values, dtype == DType::f16);
  }
}

template <int kBytes, int kWidth>
__device__ void store(const Rows& to, const Place& place, DType dtype, const float (&values)[8]) {
  if (!place.is_inside) return;
  const std::int64_t at = to.offset(place.row) + place.column;
  if constexpr (kWidth == 8) {
    store_eight<kBytes>(to.data, at, from_floats<kBytes>(values, dtype == DType::f16));
  } else {
    store_one(to.data, dtype, at, values[0]);
  }
}

template <int kBytes, int kWidth>
__global__ __launch_bounds__(kThreads) void forward(const __grid_constant__ SwigluForward x, int groups_per_row) {
  Place places[kEach];
  Eight<kBytes> gate[kEach], up[kEach];
#pragma unroll
  for (int i = 0; i < kEach; ++i) {
    places[i] = place_of<kWidth>(i, x.rows, groups_per_row);
    load<kBytes, kWidth>(x.gate, places[i], x.dtype, gate[i]);
    load<kBytes, kWidth>(x.up, places[i], x.dtype, up[i]);
  }
  const bool is_f16 = x.dtype == DType::f16;
#pragma unroll
  for (int i = 0; i < kEach; ++i) {
    float gates[8], ups[8];
    to_floats(gate[i], is_f16, gates);
    to_floats(up[i], is_f16, ups);
#pragma unroll
    for (int j = 0; j < kWidth; ++j) ups[j] *= gates[j] * sigmoid(gates[j]);
    store<kBytes, kWidth>(x.y, places[i], x.dtype, ups);
  }
}

template <int kBytes, int kWidth>
__global__ __launch_bounds__(kThreads) void backward(const __grid_constant__ SwigluBackward x, int groups_per_row) {
  Place places[kEach];
  Eight<kBytes> dy[kEach], gate[kEach], up[kEach];
#pragma unroll
  for (int i = 0; i < kEach; ++i) {
    places[i] = place_of<kWidth>(i, x.rows, groups_per_row);
    load<kBytes, kWidth>(x.dy, places[i], x.dtype, dy[i]);
    load<kBytes, kWidth>(x.gate, places[i], x.dtype, gate[i]);
    load<kBytes, kWidth>(x.up, places[i], x.dtype, up[i]);
  }
  const bool is_f16 = x.dtype == DType::f16;
#pragma unroll
  for (int i = 0; i < kEach; ++i) {
    float d[8], gates[8], ups[8];
    to_floats(dy[i], is_f16, d);
    to_floats(gate[i], is_f16, gates);
    to_floats(up[i], is_f16, ups);
#pragma unroll
    for (int j = 0; j < kWidth; ++j) {
      const float s = sigmoid(gates[j]), silu = gates[j] * s;
      gates[j] = d[j] * ups[j] * silu_derivative(gates[j], s);
      ups[j] = d[j] * silu;
    }
    store<kBytes, kWidth>(x.dgate, places[i], x.dtype, gates);
    store<kBytes, kWidth>(x.dup, places[i], x.dtype, ups);
  }
}

/// Calls launch(bytes of an element, elements of a group, groups of a row, blocks), the first two as constants.
template <class Args, class Launch>
void with_kernel(const Args& args, bool is_aligned, const Launch& launch) {
  const std::int64_t width = is_aligned ? 8 : 1, groups_per_row = args.dim / width;
  constexpr std::int64_t kMost = std::int64_t{1} << 32;
  require(args.rows * groups_per_row <= kMost - kThreads * kEach, ErrorCode::unsupported,
          "[swiglu] a tensor must have ", "fewer than 2^32 ", is_aligned ? "groups of 8 elements" : "elements",
          "; got ", args.rows, " rows of ", args.dim);
  const auto blocks = static_cast<unsigned>((args.rows * groups_per_row + kThreads * kEach - 1) / (kThreads * kEach));
  const int groups = static_cast<int>(groups_per_row);
  using std::integral_constant;
  if (size_of(args.dtype) == 2) {
    if (is_aligned) return launch(integral_constant<int, 2>(), integral_constant<int, 8>(), groups, blocks);
    return launch(integral_constant<int, 2>(), integral_constant<int, 1>(), groups, blocks);
  }
  if (is_aligned) return launch(integral_constant<int, 4>(), integral_constant<int, 8>(), groups, blocks);
  return launch(integral_constant<int, 4>(), integral_constant<int, 1>(), groups, blocks);
}

}  // namespace

void swiglu_forward(const SwigluForward& args) {
  if (args.rows * args.dim == 0) return;
  const std::int64_t bytes = size_of(args.dtype);
  const bool is_aligned =
      args.dim % 8 == 0 && args.gate.is_aligned(bytes) && args.up.is_aligned(bytes) && args.y.is_aligned(bytes);
  with_kernel(args, is_aligned, [&](auto element_bytes, auto width, int groups, unsigned blocks) {
    forward<element_bytes, width><<<blocks, kThreads, 0, args.stream>>>(args, groups);
  });
  check_cuda(cudaGetLastError(), "the launch of swiglu");
}

void swiglu_backward(const SwigluBackward& args) {
  if (args.rows * args.dim == 0) return;
  const std::int64_t bytes = size_of(args.dtype);
  const bool is_aligned = args.dim % 8 == 0 && args.dy.is_aligned(bytes) && args.gate.is_aligned(bytes) &&
                          args.up.is_aligned(bytes) && args.dgate.is_aligned(bytes) && args.dup.is_aligned(bytes);
  with_kernel(args, is_aligned, [&](auto element_bytes, auto width, int groups, unsigned blocks) {
    backward<element_bytes, width><<<blocks, kThreads, 0, args.stream>>>(args, groups);
  });
  check_cuda(cudaGetLastError(), "the launch of swiglu's backward");
}

}  // namespace comba::cuda
