#include "nn/fused.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>

#include "base/message.h"

namespace comba::nn {

bool are_cpu_floats(std::initializer_list<at::Tensor> tensors) {
  return std::all_of(tensors.begin(), tensors.end(), [](const at::Tensor& tensor) {
    return !tensor.defined() || (tensor.is_cpu() && tensor.scalar_type() == at::kFloat);
  });
}

void refuse_second_derivative(const char* layer) {
  // Grad mode is on inside backward exactly when create_graph asks for a graph of it.
  require(!at::GradMode::is_enabled(), ErrorCode::unsupported, "[", layer, "] a second derivative is not implemented");
}

}  // namespace comba::nn
