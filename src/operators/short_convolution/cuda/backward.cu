#include <cuda_runtime.h>

#include <algorithm>

#include "operators/short_convolution/cuda/tokens.cuh"
#include "runtime/cuda_check.h"

/// The short convolution, backward, from the first token of a piece to the last:
///
///     dz[t] = dy[t] silu'(z[t]),   dx[t] = sum_i weight[W - 1 - i] dz[t + i],   dweight[j] = sum_t dz[t] x[t - (W - 1)
///     + j]
///
/// where t + i and t are of one sequence. z is computed again. A thread keeps what dx of the last W - 1 tokens has so
/// far; what the tokens behind a piece give back to it is computed twice, not fetched from another thread.
///
/// Grid: (channels / (128 kChannels), parts). Each block goes through every num_parts-th piece and adds up dweight in
/// registers; column_sums adds the blocks.
namespace comba::cuda {
namespace {

constexpr std::int64_t kResident = 3;  ///< blocks on a multiprocessor

struct Piece {
  std::int64_t row, begin, end;
};

__device__ Piece piece_at(std::int64_t number, std::int64_t length, std::int64_t tokens) {
  const std::int64_t in_row = (tokens + length - 1) / length, row = number / in_row;
  const std::int64_t begin = (number - row * in_row) * length;
  return {row, begin, begin + length < tokens ? begin + length : tokens};
}

template <int kWidth, int kBytes, int kChannels>
struct Backward {
  using Vector = Channels<kBytes, kChannels>;
  static constexpr int kBefore = kWidth - 1;
  static constexpr int kAhead = kBytes == 2 ? 4 : 2;

  const ShortConvolutionBackward& y;
  std::int64_t channel;
  bool is_f16;
  float filters[kWidth][8];
  float dweight[kWidth][8] = {};

  __device__ Backward(const ShortConvolutionBackward& y, std::int64_t channel)
      : y(y), channel(channel), is_f16(y.forward.dtype == DType::f16) {
    load_filters<kWidth, kChannels>(y.forward.weight, y.forward.weight_dtype, channel, filters);
  }

  /// The next token: what it gives to dweight, unless it lies behind the piece, and to dx of itself and of the tokens
  /// before it, as far as it has seen them: `place` of them; open[k] is dx so far of the token k before it.
  /// Without kAsks all of that is so.
  template <bool kAsks>
  __device__ void take(Window<kWidth>& window, const Vector& input, const Vector& d, bool is_inside, std::int64_t place,
                       float (&open)[kWidth][8]) {
    float x[8], z[8] = {}, dz[8];
    input.values(is_f16, x);
    window.push(x);
    window.template convolve<kChannels>(filters, z);
    d.values(is_f16, dz);
#pragma unroll
    for (int c = 0; c < kChannels; ++c) dz[c] *= silu_derivative(z[c], sigmoid(z[c]));
#pragma unroll
    for (int k = kBefore; k >= 0; --k) {
      const int j = kBefore - k;
      const bool is_seen = !kAsks || k <= place;
#pragma unroll
      for (int c = 0; c < kChannels; ++c) {
        if (!kAsks || is_inside) dweight[j][c] = fmaf(dz[c], window.inputs[j][c], dweight[j][c]);
        const float before = k > 0 ? open[k > 0 ? k - 1 : 0][c] : 0.0f;
        open[k][c] = is_seen ? fmaf(filters[j][c], dz[c], before) : before;
      }
    }
  }

  __device__ void put(const Piece& piece, std::int64_t token, const float (&dx)[8]) const {
    Vector::store(y.dx.data, piece.row * y.dx.row_stride + token * y.dx.token_stride + channel, dx, is_f16);
  }
  __device__ void put_if_inside(const Piece& piece, std::int64_t token, const float (&dx)[8]) const {
    if (token >= piece.begin && token < piece.end) put(piece, token, dx);
  }

  __device__ void go_through(const Piece& piece) {
    const ShortConvolutionForward& x = y.forward;
    const std::int64_t x_at = piece.row * x.x.row_stride + channel, dy_at = piece.row * y.dy.row_stride + channel;
    // Up to the last token that may have seen one of the piece.
    const std::int64_t stop = piece.end + kBefore < x.sizes.tokens ? piece.end + kBefore : x.sizes.tokens;
    SequenceCursor sequence(x, piece.begin);
    Window<kWidth> window = window_before<kWidth, kBytes, kChannels>(x, sequence, piece.row, piece.begin, channel);
    float open[kWidth][8] = {};
    for (std::int64_t token = piece.begin; token < stop; token += kAhead) {
      Vector inputs[kAhead], dy[kAhead];
#pragma unroll
      for (int i = 0; i < kAhead; ++i) {
        if (token + i >= stop) continue;
        inputs[i] = Vector::load(x.x.data, x_at + (token + i) * x.x.token_stride);
        dy[i] = Vector::load(y.dy.data, dy_at + (token + i) * y.dy.token_stride);
      }
      sequence.advance(token);
      const bool is_plain = token - kWidth >= piece.begin && token + kAhead <= piece.end &&
                            token - sequence.first >= kBefore && !sequence.has_border(token, token + kAhead);
      if (is_plain) {
#pragma unroll
        for (int i = 0; i < kAhead; ++i) {
          put(piece, token + i - kWidth, open[kBefore]);  // nobody sees it any more
          take<false>(window, inputs[i], dy[i], true, kBefore, open);
        }
        continue;
      }
#pragma unroll
      for (int i = 0; i < kAhead; ++i) {
        const std::int64_t t = token + i;
        if (t >= stop) break;
        sequence.advance(t);
        if (t == sequence.first && t > piece.begin) window.clear();
        put_if_inside(piece, t - kWidth, open[kBefore]);
        take<true>(window, inputs[i], dy[i], t < piece.end, t - sequence.first, open);
      }
    }
#pragma unroll
    for (int k = kBefore; k >= 0; --k) put_if_inside(piece, stop - 1 - k, open[k]);
  }
};

template <int kWidth, int kBytes, int kChannels>
__global__ __launch_bounds__(kConvolutionThreads,
                             kResident) void backward(const __grid_constant__ ShortConvolutionBackward y,
                                                      std::int64_t num_pieces, std::int64_t piece_length) {
  const std::int64_t channel = (static_cast<std::int64_t>(blockIdx.x) * kConvolutionThreads + threadIdx.x) * kChannels;
  const ShortConvolutionSizes& sizes = y.forward.sizes;
  if (channel >= sizes.channels) return;
  Backward<kWidth, kBytes, kChannels> thread(y, channel);
  for (std::int64_t number = blockIdx.y; number < num_pieces; number += gridDim.y) {
    thread.go_through(piece_at(number, piece_length, sizes.tokens));
  }
  float* part = y.partial_sums + (blockIdx.y * sizes.channels + channel) * kWidth;
#pragma unroll
  for (int c = 0; c < kChannels; ++c) {
#pragma unroll
    for (int j = 0; j < kWidth; ++j) part[c * kWidth + j] = thread.dweight[j][c];
  }
}

std::int64_t num_pieces(const ShortConvolutionSizes& sizes, std::int64_t length) {
  return (sizes.tokens + length - 1) / length * sizes.batch;
}

/// As many as fit the GPU at once with eight channels a thread, whatever the alignment.
std::int64_t most_parts(const ShortConvolutionSizes& sizes) {
  const std::int64_t blocks = std::max<std::int64_t>(channel_blocks<8>(sizes.channels), 1);
  return std::max<std::int64_t>(1, num_multiprocessors() * kResident / blocks);
}

/// Long pieces compute less twice; there are to be enough of them for all blocks.
std::int64_t piece_length(const ShortConvolutionSizes& sizes) {
  std::int64_t length = kPiece;
  while (length < 4 * kPiece && num_pieces(sizes, 2 * length) >= most_parts(sizes)) length *= 2;
  return length;
}

std::int64_t num_parts(const ShortConvolutionSizes& sizes) {
  return std::min(num_pieces(sizes, piece_length(sizes)), most_parts(sizes));
}

}  // namespace

std::int64_t short_convolution_num_parts(const ShortConvolutionSizes& sizes) { return num_parts(sizes); }

void short_convolution_backward(const ShortConvolutionBackward& args) {
  const ShortConvolutionForward& x = args.forward;
  const ShortConvolutionSizes& sizes = x.sizes;
  const std::int64_t parts = sizes.channels == 0 ? 0 : num_parts(sizes);
  if (parts > 0) {
    const std::int64_t bytes = size_of(x.dtype);
    const ConstTokens tail = {x.tail, 0, sizes.channels};
    const bool aligned = sizes.channels % 8 == 0 && is_aligned(x.x, bytes) && is_aligned(args.dy, bytes) &&
                         is_aligned(args.dx, bytes) && is_aligned(tail, bytes) &&
                         is_aligned(ConstTokens{x.weight}, bytes);
    const std::int64_t length = piece_length(sizes), pieces = num_pieces(sizes, length);
    with_convolution_kernel(sizes.width, bytes, aligned, [&](auto width, auto element_bytes, auto channels) {
      const dim3 grid(static_cast<unsigned>(channel_blocks<channels>(sizes.channels)), static_cast<unsigned>(parts));
      backward<width, element_bytes, channels><<<grid, kConvolutionThreads, 0, x.stream>>>(args, pieces, length);
    });
    check_cuda(cudaGetLastError(), "the launch of short_convolution's backward");
  }
  queue_column_sums(args.partial_sums, parts, sizes.channels * sizes.width, args.dweight, x.weight_dtype, x.stream);
}

}  // namespace comba::cuda
