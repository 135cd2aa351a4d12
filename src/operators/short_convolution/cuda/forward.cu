#include <cuda_runtime.h>

#include "operators/short_convolution/cuda/tokens.cuh"
#include "runtime/cuda_check.h"

/// The short convolution, forward and step: each input is read once (and its last W - 1 once more by the next piece).
///
/// Grid: (pieces of a batch row, channels / (128 kChannels), B). The loads of the next kAhead tokens are in flight
/// while these are computed. Where no sequence begins among kAhead tokens, nothing is asked token by token.
namespace comba::cuda {
namespace {

template <int kBytes>
constexpr int kAhead = kBytes == 2 ? 4 : 2;

/// y of the next token, whose input is `input`.
template <int kWidth, int kBytes, int kChannels>
__device__ void put_next(Window<kWidth>& window, const Channels<kBytes, kChannels>& input,
                         const float (&filters)[kWidth][8], bool is_f16, void* y, std::int64_t at) {
  float x[8], z[8] = {};
  input.values(is_f16, x);
  window.push(x);
  window.template convolve<kChannels>(filters, z);
#pragma unroll
  for (int c = 0; c < kChannels; ++c) z[c] *= sigmoid(z[c]);
  Channels<kBytes, kChannels>::store(y, at, z, is_f16);
}

template <int kWidth, int kBytes, int kChannels>
__global__ __launch_bounds__(kConvolutionThreads, 4) void forward(const __grid_constant__ ShortConvolutionForward x) {
  using Vector = Channels<kBytes, kChannels>;
  const std::int64_t channel = (static_cast<std::int64_t>(blockIdx.y) * kConvolutionThreads + threadIdx.x) * kChannels;
  if (channel >= x.sizes.channels) return;
  const std::int64_t begin = blockIdx.x * kPiece, row = blockIdx.z;
  const std::int64_t end = begin + kPiece < x.sizes.tokens ? begin + kPiece : x.sizes.tokens;
  const bool is_f16 = x.dtype == DType::f16;
  const std::int64_t x_at = row * x.x.row_stride + channel, y_at = row * x.y.row_stride + channel;
  Vector next[kAhead<kBytes>];
  const auto load = [&](std::int64_t token) {
#pragma unroll
    for (int i = 0; i < kAhead<kBytes>; ++i) {
      if (token + i < end) next[i] = Vector::load(x.x.data, x_at + (token + i) * x.x.token_stride);
    }
  };
  load(begin);
  float filters[kWidth][8];
  load_filters<kWidth, kChannels>(x.weight, x.weight_dtype, channel, filters);
  SequenceCursor sequence(x, begin);
  Window<kWidth> window = window_before<kWidth, kBytes, kChannels>(x, sequence, row, begin, channel);
  for (std::int64_t token = begin; token < end; token += kAhead<kBytes>) {
    Vector inputs[kAhead<kBytes>];
#pragma unroll
    for (int i = 0; i < kAhead<kBytes>; ++i) inputs[i] = next[i];
    load(token + kAhead<kBytes>);
    sequence.advance(token);
    if (token == sequence.first && token > begin) window.clear();
    if (token + kAhead<kBytes> <= end && !sequence.has_border(token, token + kAhead<kBytes>)) {
#pragma unroll
      for (int i = 0; i < kAhead<kBytes>; ++i) {
        put_next(window, inputs[i], filters, is_f16, x.y.data, y_at + (token + i) * x.y.token_stride);
      }
      continue;
    }
#pragma unroll
    for (int i = 0; i < kAhead<kBytes>; ++i) {
      if (token + i >= end) break;
      sequence.advance(token + i);
      if (token + i == sequence.first && token + i > begin) window.clear();
      put_next(window, inputs[i], filters, is_f16, x.y.data, y_at + (token + i) * x.y.token_stride);
    }
  }
}

/// Grid: (channels / (128 kChannels), B). A thread alone reads and writes the tail of its channels.
template <int kWidth, int kBytes, int kChannels>
__global__ __launch_bounds__(kConvolutionThreads) void step(const __grid_constant__ ShortConvolutionStep x) {
  using Vector = Channels<kBytes, kChannels>;
  constexpr int kBefore = kWidth - 1;
  const std::int64_t channel = (static_cast<std::int64_t>(blockIdx.x) * kConvolutionThreads + threadIdx.x) * kChannels;
  if (channel >= x.sizes.channels) return;
  const std::int64_t row = blockIdx.y, tail_at = row * kBefore * x.sizes.channels + channel;
  const bool is_f16 = x.dtype == DType::f16;
  Window<kWidth> window;
#pragma unroll
  for (int j = 0; j < kBefore; ++j) {
    Vector::load(x.tail, tail_at + j * x.sizes.channels).values(is_f16, window.inputs[j + 1]);
  }
  float filters[kWidth][8];
  load_filters<kWidth, kChannels>(x.weight, x.weight_dtype, channel, filters);
  for (std::int64_t token = 0; token < x.sizes.tokens; ++token) {
    const Vector input = Vector::load(x.x.data, row * x.x.row_stride + token * x.x.token_stride + channel);
    put_next(window, input, filters, is_f16, x.y.data, row * x.y.row_stride + token * x.y.token_stride + channel);
  }
#pragma unroll
  for (int j = 0; j < kBefore; ++j) {
    Vector::store(x.tail, tail_at + j * x.sizes.channels, window.inputs[j + 1], is_f16);
  }
}

}  // namespace

void short_convolution_forward(const ShortConvolutionForward& args) {
  const ShortConvolutionSizes& sizes = args.sizes;
  if (sizes.batch * sizes.tokens * sizes.channels == 0) return;
  const std::int64_t bytes = size_of(args.dtype);
  const ConstTokens tail = {args.tail, 0, sizes.channels};
  const bool aligned =
      sizes.channels % 8 == 0 && is_aligned(args.x, bytes) && is_aligned(args.y, bytes) && is_aligned(tail, bytes);
  with_convolution_kernel(sizes.width, bytes, aligned, [&](auto width, auto element_bytes, auto channels) {
    const dim3 grid(static_cast<unsigned>((sizes.tokens + kPiece - 1) / kPiece),
                    static_cast<unsigned>(channel_blocks<channels>(sizes.channels)),
                    static_cast<unsigned>(sizes.batch));
    forward<width, element_bytes, channels><<<grid, kConvolutionThreads, 0, args.stream>>>(args);
  });
  check_cuda(cudaGetLastError(), "the launch of short_convolution");
}

void short_convolution_step(const ShortConvolutionStep& args) {
  const ShortConvolutionSizes& sizes = args.sizes;
  if (sizes.batch * sizes.channels == 0) return;
  const std::int64_t bytes = size_of(args.dtype);
  const ConstTokens tail = {args.tail, 0, sizes.channels};
  const bool aligned =
      sizes.channels % 8 == 0 && is_aligned(args.x, bytes) && is_aligned(args.y, bytes) && is_aligned(tail, bytes);
  with_convolution_kernel(sizes.width, bytes, aligned, [&](auto width, auto element_bytes, auto channels) {
    const dim3 grid(static_cast<unsigned>(channel_blocks<channels>(sizes.channels)),
                    static_cast<unsigned>(sizes.batch));
    step<width, element_bytes, channels><<<grid, kConvolutionThreads, 0, args.stream>>>(args);
  });
  check_cuda(cudaGetLastError(), "the launch of short_convolution's step");
}

}  // namespace comba::cuda
