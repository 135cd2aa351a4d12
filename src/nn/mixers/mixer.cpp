#include "nn/mixers/mixer.h"

#include "nn/linear.h"

namespace comba::nn {

int64_t state_bytes(const LayerState& state) {
  int64_t bytes = 0;
  for (const at::Tensor& tensor : state.tensors) bytes += static_cast<int64_t>(tensor.nbytes());
  return bytes;
}

int64_t num_parameters(const torch::nn::Module& module) {
  int64_t count = 0;
  for (const at::Tensor& parameter : module.parameters()) count += parameter.numel();
  return count;
}

double linear_flops(const torch::nn::Module& mixer) {
  double flops = 0;
  for (const auto& module : mixer.modules()) {
    if (module->as<Linear>() == nullptr) continue;
    flops += 2.0 * static_cast<double>(module->named_parameters()["weight"].numel());
  }
  return flops;
}

}  // namespace comba::nn
