#pragma once

#include <torch/nn/module.h>

#include <memory>

#include "nn/linear.h"

namespace comba::tasks {

/// The layer below the mixer in Zoology's models, BaseConv (arXiv 2312.04927, section 4): a gate and a short causal
/// convolution of each channel, without an activation, and a residual of its own.
///     y = (x * filter + bias) (x W + c) + x,    (x * filter)[t] = sum_j filter[j] x[t - (width - 1) + j]
/// Parameters: convolution.weight [D, 1, width], convolution.bias [D], projection.weight [D, D], projection.bias [D].
class GatedConvolution : public torch::nn::Module {
 public:
  static constexpr std::int64_t kWidth = 3;

  GatedConvolution(std::int64_t hidden_size, const at::TensorOptions& options);

  /// x [B, T, D] -> [B, T, D]
  at::Tensor forward(const at::Tensor& x);

 private:
  class Filter;

  std::shared_ptr<Filter> convolution_;
  std::shared_ptr<nn::Linear> projection_;
};

}  // namespace comba::tasks
