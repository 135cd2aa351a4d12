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

  at::Tensor forward(const at::Tensor& x);
  const at::Tensor& weight() const { return weight_; }  ///< i8 after round_to_int8()
  /// Dtype and device of what comes out.
  at::TensorOptions options() const { return (is_int8() ? scales_ : weight_).options().requires_grad(false); }

  /// Keeps the weight as int8_linear.h says from now on. There is no way back, and no gradient of it.
  void round_to_int8();
  bool is_int8() const { return scales_.defined(); }

 private:
  at::Tensor weight_;
  at::Tensor scales_;  ///< [out], where the weight is i8
  at::Tensor bias_;
};

}  // namespace comba::nn
