#pragma once

#include <torch/nn/module.h>

#include "libtorch/rms_norm.h"

namespace comba::nn {

/// Parameter: weight [D].
class RMSNorm : public torch::nn::Module {
 public:
  RMSNorm(int64_t dim, double eps, const at::TensorOptions& options)
      : weight_(register_parameter("weight", at::empty({dim}, options))), eps_(eps) {}

  at::Tensor forward(const at::Tensor& x) { return rms_norm(x, weight_, eps_); }

  /// The norm of a residual stream after a branch was added to it, and that sum: as rms_norm_of_stream.
  NormedStream forward(const at::Tensor& stream, const at::Tensor& branch, at::ScalarType dtype) {
    return rms_norm_of_stream(stream, branch, weight_, eps_, dtype);
  }

 private:
  at::Tensor weight_;
  double eps_;
};

/// The norm at the end of a mixer, over each head's values.  Parameter: weight [V], shared by the heads.
class GatedRMSNorm : public torch::nn::Module {
 public:
  GatedRMSNorm(int64_t dim, double eps, GateFunction function, const at::TensorOptions& options)
      : weight_(register_parameter("weight", at::empty({dim}, options))), eps_(eps), function_(function) {}

  /// gate: undefined for the norm alone.
  at::Tensor forward(const at::Tensor& x, const at::Tensor& gate) {
    return rms_norm(x, weight_, eps_, gate, function_);
  }

 private:
  at::Tensor weight_;
  double eps_;
  GateFunction function_;
};

}  // namespace comba::nn
