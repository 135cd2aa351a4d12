#include "nn/int8_linear.h"

#include <ATen/ops/_weight_int8pack_mm.h>

#include "base/message.h"
#include "nn/linear.h"

namespace comba::nn {
namespace {

constexpr double kLargest = 127;
// LibTorch's product goes through all weights for each row of x; from here on widening them once costs less.
constexpr int64_t kMostRows = 16;
// It reads rows of the weight in whole vectors, and past their end where they do not divide.
constexpr int64_t kVector = 32;

/// The next number of bf16 that is not below.  x >= 0, fp32
at::Tensor rounded_up_to_bf16(const at::Tensor& x) {
  constexpr int kLowerHalf = 0xffff;
  return x.view(at::kInt).add(kLowerHalf).bitwise_and(~kLowerHalf).view(at::kFloat);
}

}  // namespace

std::pair<at::Tensor, at::Tensor> rounded_to_int8(const at::Tensor& weight) {
  const at::NoGradGuard no_grad;
  const at::Tensor wide = weight.to(at::kFloat);
  const at::Tensor largest = wide.abs().amax(/*dim=*/1);  // [out]
  require(at::isfinite(largest).all().item<bool>(), ErrorCode::numerical,
          "[int8] weights must be finite; got a row with the largest value ", largest.max().item<float>());
  const at::Tensor scales = rounded_up_to_bf16(largest / kLargest);
  const at::Tensor divisor = at::where(scales > 0, scales, at::ones_like(scales)).unsqueeze(1);
  const at::Tensor values = wide.div(divisor).round_().clamp_(-kLargest, kLargest).to(at::kChar);
  return {values, scales.to(weight.scalar_type())};
}

at::Tensor int8_linear(const at::Tensor& x, const at::Tensor& values, const at::Tensor& scales) {
  const int64_t out = values.size(0), in = values.size(1);
  if (!x.is_cpu() || x.numel() > kMostRows * in || in % kVector != 0) {
    return nn::linear(x, values.to(x.scalar_type())) * scales.to(x.scalar_type());
  }
  std::vector<int64_t> sizes = x.sizes().vec();
  sizes.back() = out;
  const at::Tensor rows = x.reshape({-1, in}).to(at::kBFloat16).contiguous();
  return at::_weight_int8pack_mm(rows, values, scales.to(at::kBFloat16)).to(x.scalar_type()).view(sizes);
}

}  // namespace comba::nn
