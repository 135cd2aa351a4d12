#pragma once

#include <torch/nn/module.h>

namespace comba::nn {

/// y = x W^T (+ bias).  x [..., in], weight [out, in], bias [out] or undefined -> [..., out]
/// The dtype is that of x: fp32 weights beside a 16-bit x are rounded to it, and their gradients are fp32.
at::Tensor linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias = {});

/// Parameters: weight [out, in], and bias [out] when asked for.
/// Their storage is not set: torch::nn::Linear would draw every weight only for it to be overwritten.
class Linear : public torch::nn::Module {
 public:
  Linear(int64_t in, int64_t out, const at::TensorOptions& options, bool with_bias = false)
      : weight_(register_parameter("weight", at::empty({out, in}, options))) {
    if (with_bias) bias_ = register_parameter("bias", at::empty({out}, options));
  }

  /// Without a bias, of a weight [out, in] that may lie beside others.
  explicit Linear(const at::Tensor& weight) : weight_(register_parameter("weight", weight)) {}

  at::Tensor forward(const at::Tensor& x) { return linear(x, weight_, bias_); }
  const at::Tensor& weight() const { return weight_; }

 private:
  at::Tensor weight_;
  at::Tensor bias_;
};

}  // namespace comba::nn
