#pragma once

#include <torch/torch.h>

namespace comba::nn {

/// y = weight x / sqrt(mean(x^2) + eps), means over the last dimension, in fp32 for 16-bit x.
/// x [..., D], weight [D] -> [..., D] in the dtype of x
at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps);

/// Parameter: weight [D].
class RMSNorm : public torch::nn::Module {
 public:
  RMSNorm(int64_t dim, double eps, const at::TensorOptions& options)
      : weight_(register_parameter("weight", at::empty({dim}, options))), eps_(eps) {}

  at::Tensor forward(const at::Tensor& x) { return rms_norm(x, weight_, eps_); }

 private:
  at::Tensor weight_;
  double eps_;
};

}  // namespace comba::nn
