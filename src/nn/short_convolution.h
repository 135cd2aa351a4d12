#pragma once

#include <torch/nn/module.h>

#include "libtorch/short_convolution.h"
#include "nn/layer_state.h"

namespace comba::nn {

/// Causal convolution over the tokens of each channel, with SiLU.  Parameter: weight [C, 1, W].
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
