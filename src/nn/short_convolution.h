#pragma once

#include <torch/nn/module.h>

#include <vector>

#include "libtorch/short_convolution.h"
#include "nn/layer_state.h"

namespace comba::nn {

/// Causal convolution over the tokens of each channel, with SiLU.  Parameter: weight [C, 1, W].
class ShortConvolution : public torch::nn::Module {
 public:
  ShortConvolution(int64_t channels, int64_t width, const at::TensorOptions& options)
      : weight_(register_parameter("weight", at::empty({channels, 1, width}, options))) {}
  /// Of a weight [C, 1, W] that may lie beside others.
  explicit ShortConvolution(const at::Tensor& weight) : weight_(register_parameter("weight", weight)) {}

  /// `tail`, when given, holds the last W - 1 inputs of the stream and is advanced in place.
  at::Tensor forward(const at::Tensor& x, const TokenSpan& span, at::Tensor* tail);

  /// The tail of a stream before its first token.  [B, W - 1, C]
  at::Tensor initial_tail(int64_t batch) const;

  const at::Tensor& weight() const { return weight_; }

 private:
  at::Tensor weight_;
};

/// Several of them, without tails, over inputs of the same tokens.  x_i [B, T, C_i], weights [C_i, 1, W] -> [B, T, C_i]
/// On a GPU one call computes all where inputs and weights are neighbours (libtorch/columns.h): then so are the
/// results, and the gradients of the inputs, which leave room for what belongs behind them.
std::vector<at::Tensor> short_convolutions(at::TensorList x, at::TensorList weights, const at::Tensor& cu_seqlens);

}  // namespace comba::nn
