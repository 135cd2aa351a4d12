#pragma once

#include <torch/nn/module.h>

#include "nn/layer_state.h"

namespace comba::nn {

/// y[t, c] = silu(sum_j weight[c, j] x[t - (W - 1) + j, c]): causal, one filter a channel, SiLU behind it.
/// x [B, T, C], weight [C, 1, W] -> [B, T, C].  Before its first token a sequence reads `tail` [B, W - 1, C], or zeros;
/// with cu_seqlens each packed sequence reads zeros, and `tail` must be absent.
at::Tensor short_convolution(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& tail,
                             const at::Tensor& cu_seqlens);

/// Parameter: weight [C, 1, W].
class ShortConvolution : public torch::nn::Module {
 public:
  ShortConvolution(int64_t channels, int64_t width, const at::TensorOptions& options)
      : weight_(register_parameter("weight", at::empty({channels, 1, width}, options))) {}

  /// `tail`, when given, holds the last W - 1 inputs of the stream and is advanced in place.
  at::Tensor forward(const at::Tensor& x, const TokenSpan& span, at::Tensor* tail);

  /// The tail of a stream before its first token.  [B, W - 1, C]
  at::Tensor initial_tail(int64_t batch) const;

 private:
  at::Tensor weight_;
};

}  // namespace comba::nn
