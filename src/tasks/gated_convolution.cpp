#include "tasks/gated_convolution.h"

namespace comba::tasks {

/// Shifted copies, each times its tap: the same sums in the same order on every device.
class GatedConvolution::Filter : public torch::nn::Module {
 public:
  Filter(std::int64_t channels, const at::TensorOptions& options)
      : weight_(register_parameter("weight", at::empty({channels, 1, kWidth}, options))),
        bias_(register_parameter("bias", at::empty({channels}, options))) {}

  at::Tensor forward(const at::Tensor& x) {
    const at::Tensor padded = at::constant_pad_nd(x, {0, 0, kWidth - 1, 0});
    at::Tensor sum = bias_;
    for (std::int64_t j = 0; j < kWidth; ++j) {
      sum = sum + padded.narrow(1, j, x.size(1)) * weight_.select(2, j).squeeze(1);
    }
    return sum;
  }

 private:
  at::Tensor weight_, bias_;
};

GatedConvolution::GatedConvolution(std::int64_t hidden_size, const at::TensorOptions& options)
    : convolution_(register_module("convolution", std::make_shared<Filter>(hidden_size, options))),
      projection_(register_module(
          "projection", std::make_shared<nn::Linear>(hidden_size, hidden_size, options, /*with_bias=*/true))) {}

at::Tensor GatedConvolution::forward(const at::Tensor& x) {
  return at::addcmul(x, convolution_->forward(x), projection_->forward(x));
}

}  // namespace comba::tasks
