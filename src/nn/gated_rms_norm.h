#pragma once

#include <torch/torch.h>

namespace comba::nn {

/// The function of the gate: sigmoid(x) in Comba, x sigmoid(x) in Gated DeltaNet.
enum class Gate { sigmoid, silu };

/// y = rms_norm(x, weight) f(gate); without a gate (undefined) the norm alone.
/// x, gate [..., D], weight [D] -> [..., D]
at::Tensor gated_rms_norm(const at::Tensor& x, const at::Tensor& gate, const at::Tensor& weight, double eps,
                          Gate function);

/// The norm at the end of a mixer, over each head's values.  Parameter: weight [V], shared by the heads.
class GatedRMSNorm : public torch::nn::Module {
 public:
  GatedRMSNorm(int64_t dim, double eps, Gate function, const at::TensorOptions& options)
      : weight_(register_parameter("weight", at::empty({dim}, options))), eps_(eps), function_(function) {}

  at::Tensor forward(const at::Tensor& x, const at::Tensor& gate) {
    return gated_rms_norm(x, gate, weight_, eps_, function_);
  }

 private:
  at::Tensor weight_;
  double eps_;
  Gate function_;
};

}  // namespace comba::nn
