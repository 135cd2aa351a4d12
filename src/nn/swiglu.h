#pragma once

#include <torch/nn/module.h>

#include <memory>

#include "nn/linear.h"

namespace comba::nn {

/// y = silu(gate) up.  [..., F], [..., F] -> [..., F]
at::Tensor swiglu(const at::Tensor& gate, const at::Tensor& up);

/// The MLP of a block: down(silu(gate(x)) up(x)).  [..., D] -> [..., D], F wide inside.
/// The weights of gate and up are neighbours in memory: on a GPU one matrix product makes both.
class SwiGLU : public torch::nn::Module {
 public:
  SwiGLU(int64_t hidden_size, int64_t intermediate_size, const at::TensorOptions& options);

  at::Tensor forward(const at::Tensor& x);

 private:
  std::shared_ptr<Linear> gate_proj_, up_proj_, down_proj_;
};

}  // namespace comba::nn
