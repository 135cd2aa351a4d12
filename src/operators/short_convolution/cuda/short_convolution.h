#pragma once

#include "operators/cuda/launch.h"

/// Causal convolution over tokens, one filter of width W a channel, with SiLU behind it, on a GPU:
///
///     y[b, t, c] = silu(z[b, t, c]),   z[b, t, c] = sum_j weight[c, j] x[b, t - (W - 1) + j, c]
///
/// in fp32, whatever the dtypes. Before the first token of a sequence x is `tail`, or zero; with cu_seqlens, which are
/// read on the device alone, it is zero. Borders that are none make no access outside the tensors, but no sense either.
/// Everything is queued on the stream; the same bits each time.
namespace comba::cuda {

inline constexpr std::int64_t kLargestConvolutionWidth = 4;

/// A [B, T, C] tensor whose channels lie side by side.
template <class Void>
struct BasicTokens {
  Void* data = nullptr;
  std::int64_t row_stride = 0, token_stride = 0;  ///< elements
};
using Tokens = BasicTokens<void>;
using ConstTokens = BasicTokens<const void>;

struct ShortConvolutionSizes {
  std::int64_t batch = 0;     ///< B
  std::int64_t tokens = 0;    ///< T
  std::int64_t channels = 0;  ///< C
  std::int64_t width = 0;     ///< W, from 1 to 4
};

struct ShortConvolutionForward {
  ShortConvolutionSizes sizes;
  DType dtype = DType::f32;          ///< of x, tail and y: f32, bf16 or f16
  DType weight_dtype = DType::f32;   ///< any of these
  ConstTokens x;                     ///< [B, T, C]
  const void* weight = nullptr;      ///< [C, W]
  const void* tail = nullptr;        ///< [B, W - 1, C]  optional
  const void* cu_seqlens = nullptr;  ///< [N + 1]  optional: packed sequences, B = 1
  bool cu_seqlens_are_i64 = false;
  std::int64_t num_sequences = 0;  ///< N
  Tokens y;                        ///< [B, T, C]
  CUstream_st* stream = nullptr;
};

/// The tail gets no gradient.
struct ShortConvolutionBackward {
  ShortConvolutionForward forward;  ///< y is not used
  ConstTokens dy;                   ///< [B, T, C]
  Tokens dx;                        ///< [B, T, C]
  void* dweight = nullptr;          ///< [C, W]  in the dtype of the weight
  float* partial_sums = nullptr;    ///< [short_convolution_num_parts(sizes), C, W]  scratch
};

/// A few more tokens of B streams: forward, and then `tail` holds the last W - 1 inputs.
struct ShortConvolutionStep {
  ShortConvolutionSizes sizes;
  DType dtype = DType::f32;
  DType weight_dtype = DType::f32;
  ConstTokens x;                 ///< [B, T, C]
  const void* weight = nullptr;  ///< [C, W]
  void* tail = nullptr;          ///< [B, W - 1, C]
  Tokens y;                      ///< [B, T, C]
  CUstream_st* stream = nullptr;
};

/// Of sums over tokens, at most.
std::int64_t short_convolution_num_parts(const ShortConvolutionSizes& sizes);

void short_convolution_forward(const ShortConvolutionForward& args);
void short_convolution_backward(const ShortConvolutionBackward& args);
void short_convolution_step(const ShortConvolutionStep& args);

}  // namespace comba::cuda
