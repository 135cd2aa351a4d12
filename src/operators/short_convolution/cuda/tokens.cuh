#pragma once

#include <type_traits>

#include "operators/cuda/eight.cuh"
#include "operators/short_convolution/cuda/short_convolution.h"

/// What the convolution's kernels share: a thread's channels, and where sequences begin.
///
/// A thread has kChannels channels side by side, eight where x is aligned to 16 bytes and one elsewhere, and goes
/// through a piece of one batch row, its last inputs in registers.
namespace comba::cuda {

constexpr int kConvolutionThreads = 128;
constexpr std::int64_t kPiece = 64;  ///< tokens, the fewest

/// kChannels neighbouring elements as they lie in memory.
template <int kBytes, int kChannels>
struct Channels {
  Eight<kBytes> raw;

  __device__ static Channels zero() { return {zero_eight<kBytes>()}; }
  __device__ static Channels load(const void* data, std::int64_t element) {
    if constexpr (kChannels == 8) return {load_eight<kBytes>(data, element)};
    Channels x = zero();
    if constexpr (kBytes == 4) {
      x.raw.bits[0].x = static_cast<const unsigned*>(data)[element];
    } else {
      x.raw.bits[0].x = static_cast<const unsigned short*>(data)[element];
    }
    return x;
  }
  __device__ void values(bool is_f16, float (&x)[8]) const { to_floats(raw, is_f16, x); }
  __device__ static void store(void* data, std::int64_t element, const float (&x)[8], bool is_f16) {
    const Eight<kBytes> raw = from_floats<kBytes>(x, is_f16);
    if constexpr (kChannels == 8) {
      store_eight<kBytes>(data, element, raw);
    } else if constexpr (kBytes == 4) {
      static_cast<unsigned*>(data)[element] = raw.bits[0].x;
    } else {
      static_cast<unsigned short*>(data)[element] = static_cast<unsigned short>(raw.bits[0].x);
    }
  }
};

/// weight[channel + c, j] as filters[j][c]. They lie side by side, and where there are eight channels aligned to 16
/// bytes.
template <int kWidth, int kChannels>
__device__ void load_filters(const void* weight, DType dtype, std::int64_t channel, float (&filters)[kWidth][8]) {
#pragma unroll
  for (int group = 0; group < kWidth; ++group) {
    float values[8] = {};
    if constexpr (kChannels == 8) {
      const std::int64_t at = channel * kWidth + 8 * group;
      if (dtype == DType::f32) {
        to_floats(load_eight<4>(weight, at), false, values);
      } else {
        to_floats(load_eight<2>(weight, at), dtype == DType::f16, values);
      }
#pragma unroll
      for (int i = 0; i < 8; ++i) filters[(8 * group + i) % kWidth][(8 * group + i) / kWidth] = values[i];
    } else {
      filters[group][0] = load_one(weight, dtype, channel * kWidth + group);
    }
  }
}

/// The last kWidth inputs of a thread's channels, the oldest first.
template <int kWidth>
struct Window {
  float inputs[kWidth][8] = {};

  __device__ void push(const float (&x)[8]) {
#pragma unroll
    for (int j = 0; j + 1 < kWidth; ++j) {
#pragma unroll
      for (int c = 0; c < 8; ++c) inputs[j][c] = inputs[j + 1][c];
    }
#pragma unroll
    for (int c = 0; c < 8; ++c) inputs[kWidth - 1][c] = x[c];
  }

  __device__ void clear() {
#pragma unroll
    for (int j = 0; j < kWidth; ++j) {
#pragma unroll
      for (int c = 0; c < 8; ++c) inputs[j][c] = 0;
    }
  }

  /// z[c] = sum_j filters[j][c] inputs[j][c]
  template <int kChannels>
  __device__ void convolve(const float (&filters)[kWidth][8], float (&z)[8]) const {
#pragma unroll
    for (int c = 0; c < kChannels; ++c) {
      z[c] = filters[0][c] * inputs[0][c];
#pragma unroll
      for (int j = 1; j < kWidth; ++j) z[c] = fmaf(filters[j][c], inputs[j][c], z[c]);
    }
  }
};

/// How far the current sequence has come, token by token. Without borders a batch row is one sequence.
struct SequenceCursor {
  const void* borders;
  bool are_i64;
  std::int64_t num_sequences, tokens;
  std::int64_t next = 0;             ///< sequences up to here have begun
  std::int64_t first = 0, last = 0;  ///< the current one's tokens [first, last)

  __device__ std::int64_t border(std::int64_t n) const {
    return are_i64 ? static_cast<const std::int64_t*>(borders)[n] : static_cast<const std::int32_t*>(borders)[n];
  }

  __device__ SequenceCursor(const ShortConvolutionForward& x, std::int64_t token)
      : borders(x.cu_seqlens), are_i64(x.cu_seqlens_are_i64), num_sequences(x.num_sequences), tokens(x.sizes.tokens) {
    last = tokens;
    if (borders == nullptr || num_sequences == 0) return;
    // The last border that is not beyond the token.
    std::int64_t low = 0, high = num_sequences;
    while (low + 1 < high) {
      const std::int64_t middle = (low + high) / 2;
      (border(middle) <= token ? low : high) = middle;
    }
    first = border(low);
    last = border(low + 1);
    next = low + 1;
  }

  /// Whether a sequence begins inside tokens (token, end).
  __device__ bool has_border(std::int64_t token, std::int64_t end) const { return token < first || end > last; }

  /// On to the sequence of this token, not before that of the last call.
  __device__ void advance(std::int64_t token) {
    while (token >= last && next < num_sequences) {
      first = last;
      last = border(++next);
    }
  }
};

/// The inputs before token `begin` of a batch row, as that token sees them.
template <int kWidth, int kBytes, int kChannels>
__device__ Window<kWidth> window_before(const ShortConvolutionForward& x, const SequenceCursor& sequence,
                                        std::int64_t row, std::int64_t begin, std::int64_t channel) {
  constexpr int kBefore = kWidth - 1;
  using Vector = Channels<kBytes, kChannels>;
  Window<kWidth> window;
#pragma unroll
  for (int j = 0; j < kBefore; ++j) {
    const std::int64_t token = begin - kBefore + j;
    Vector input = Vector::zero();
    if (token >= sequence.first && token >= 0) {
      input = Vector::load(x.x.data, row * x.x.row_stride + token * x.x.token_stride + channel);
    } else if (x.tail != nullptr) {  // then the sequence is the row, and the token lies before it
      input = Vector::load(x.tail, (row * kBefore + kBefore + token) * x.sizes.channels + channel);
    }
    input.values(x.dtype == DType::f16, window.inputs[j + 1]);
  }
  return window;
}

/// Blocks along the channels.
template <int kChannels>
std::int64_t channel_blocks(std::int64_t channels) {
  const std::int64_t threads = (channels + kChannels - 1) / kChannels;
  return (threads + kConvolutionThreads - 1) / kConvolutionThreads;
}

template <class Void>
bool is_aligned(const BasicTokens<Void>& x, std::int64_t element_bytes) {
  const auto bits = reinterpret_cast<std::uintptr_t>(x.data) |
                    static_cast<std::uintptr_t>(x.row_stride * element_bytes) |
                    static_cast<std::uintptr_t>(x.token_stride * element_bytes);
  return bits % 16 == 0;
}

/// Calls launch(width, bytes, channels) with these as constants.
template <class Launch>
void with_convolution_kernel(std::int64_t width, std::int64_t element_bytes, bool is_aligned, const Launch& launch) {
  const auto with_width = [&](auto bytes, auto channels) {
    using std::integral_constant;
    if (width == 4) return launch(integral_constant<int, 4>(), bytes, channels);
    if (width == 3) return launch(integral_constant<int, 3>(), bytes, channels);
    if (width == 2) return launch(integral_constant<int, 2>(), bytes, channels);
    return launch(integral_constant<int, 1>(), bytes, channels);
  };
  using std::integral_constant;
  if (element_bytes == 2) {
    if (is_aligned) return with_width(integral_constant<int, 2>(), integral_constant<int, 8>());
    return with_width(integral_constant<int, 2>(), integral_constant<int, 1>());
  }
  if (is_aligned) return with_width(integral_constant<int, 4>(), integral_constant<int, 8>());
  return with_width(integral_constant<int, 4>(), integral_constant<int, 1>());
}

}  // namespace comba::cuda
