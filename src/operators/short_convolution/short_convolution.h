#pragma once

#include <cstdint>
#include <vector>

/// Causal convolution over tokens, one filter of width 4 a channel, with SiLU behind it; fp32, dense, on the CPU.
///
///     y[b, t, c] = silu(z[b, t, c]),   z[b, t, c] = sum_j weight[j, c] x[b, t - 3 + j, c]
///
/// Before the first token of a sequence x is `tail`, or zero. Deterministic, whatever the number of threads.
namespace comba {

inline constexpr std::int64_t kShortConvolutionWidth = 4;

/// Tokens [begin, end) of batch row `row`, all of one sequence, which has tokens [first, last).
struct ConvolutionPiece {
  std::int64_t row, begin, end, first, last;
};

/// Cuts a batch into pieces worth a thread each. `borders` are those of packed sequences (cu_seqlens; B = 1), or empty.
std::vector<ConvolutionPiece> cut_into_pieces(std::int64_t batch, std::int64_t tokens,
                                              const std::vector<std::int64_t>& borders);

struct ShortConvolutionForward {
  std::int64_t tokens = 0;        ///< T
  std::int64_t channels = 0;      ///< C
  const float* x = nullptr;       ///< [B, T, C]
  const float* weight = nullptr;  ///< [4, C]
  const float* tail = nullptr;    ///< [B, 3, C]  optional; not for packed sequences
  float* y = nullptr;             ///< [B, T, C]
};

struct ShortConvolutionBackward {
  std::int64_t tokens = 0;
  std::int64_t channels = 0;
  const float* dy = nullptr;      ///< [B, T, C]
  const float* x = nullptr;       ///< [B, T, C]
  const float* weight = nullptr;  ///< [4, C]
  const float* tail = nullptr;    ///< [B, 3, C]  optional; gets no gradient
  float* dx = nullptr;            ///< [B, T, C]
  float* dweight = nullptr;       ///< [number of pieces, 4, C]  to be summed by the caller
};

void short_convolution_forward(const ShortConvolutionForward& args, const std::vector<ConvolutionPiece>& pieces);
void short_convolution_backward(const ShortConvolutionBackward& args, const std::vector<ConvolutionPiece>& pieces);

}  // namespace comba
