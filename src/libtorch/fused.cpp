#include "libtorch/fused.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>

#include "base/message.h"

namespace comba {

bool are_cpu_floats(std::initializer_list<at::Tensor> tensors) {
  return std::all_of(tensors.begin(), tensors.end(), [](const at::Tensor& tensor) {
    return !tensor.defined() || (tensor.is_cpu() && tensor.scalar_type() == at::kFloat);
  });
}

bool is_computed_in_floats(const at::Tensor& x, const at::Tensor& weight) {
  const auto is_half = [](const at::Tensor& tensor) {
    return tensor.scalar_type() == at::kBFloat16 || tensor.scalar_type() == at::kHalf;
  };
  return is_half(x) && (weight.scalar_type() == at::kFloat || (x.is_cpu() && is_half(weight)));
}

void refuse_second_derivative(const char* layer) {
  // Grad mode is on inside backward exactly when create_graph asks for a graph of it.
  require(!at::GradMode::is_enabled(), ErrorCode::unsupported, "[", layer, "] a second derivative is not implemented");
}

}  // namespace comba
