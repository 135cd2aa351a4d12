#pragma once

#include <torch/nn/module.h>

namespace comba::nn {

/// y = weight (x - mean) / sqrt(variance + eps) + bias over the last dimension, or in groups of it, each with a mean
/// and a variance of its own; in fp32 for 16-bit x.  Parameters: weight [D], bias [D] when asked for.
class LayerNorm : public torch::nn::Module {
 public:
  LayerNorm(int64_t dim, int64_t num_groups, double eps, bool with_bias, const at::TensorOptions& options)
      : weight_(register_parameter("weight", at::empty({dim}, options))), num_groups_(num_groups), eps_(eps) {
    if (with_bias) bias_ = register_parameter("bias", at::empty({dim}, options));
  }

  /// x [.., D] -> [.., D] in the dtype of x.
  at::Tensor forward(const at::Tensor& x) {
    const at::ScalarType wide = at::promote_types(x.scalar_type(), at::kFloat);
    const at::Tensor groups = x.to(wide).unflatten(-1, {num_groups_, -1});
    const at::Tensor normed = at::layer_norm(groups, {groups.size(-1)}, {}, {}, eps_).flatten(-2);
    const at::Tensor scaled = normed * weight_.to(wide);
    return (bias_.defined() ? scaled + bias_.to(wide) : scaled).to(x.scalar_type());
  }

 private:
  at::Tensor weight_, bias_;
  int64_t num_groups_;
  double eps_;
};

}  // namespace comba::nn
