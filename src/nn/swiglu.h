#pragma once

#include <torch/nn/module.h>

#include <memory>

#include "nn/linear.h"

namespace comba::nn {

/// y = silu(gate) up.  [..., F], [..., F] -> [..., F]
at::Tensor swiglu(const at::Tensor& gate, const at::Tensor& up);

/// The MLP of a block: down(silu(gate(x)) up(x)).  [..., D] -> [..., D], F wide inside.
class SwiGLU : public torch::nn::Module {
 public:
  SwiGLU(int64_t hidden_size, int64_t intermediate_size, const at::TensorOptions& options)
      : gate_proj_(register_module("gate_proj", std::make_shared<Linear>(hidden_size, intermediate_size, options))),
        up_proj_(register_module("up_proj", std::make_shared<Linear>(hidden_size, intermediate_size, options))),
        down_proj_(register_module("down_proj", std::make_shared<Linear>(intermediate_size, hidden_size, options))) {}

  at::Tensor forward(const at::Tensor& x) {
    return down_proj_->forward(swiglu(gate_proj_->forward(x), up_proj_->forward(x)));
  }

 private:
  std::shared_ptr<Linear> gate_proj_, up_proj_, down_proj_;
};

}  // namespace comba::nn
