#include "nn/gated_rms_norm.h"

#include "nn/rms_norm.h"

namespace comba::nn {

at::Tensor gated_rms_norm(const at::Tensor& x, const at::Tensor& gate, const at::Tensor& weight, double eps,
                          Gate function) {
  if (!gate.defined()) return rms_norm(x, weight, eps);
  const at::Tensor opening = function == Gate::sigmoid ? at::sigmoid(gate) : at::silu(gate);
  return rms_norm(x, weight, eps) * opening;
}

}  // namespace comba::nn
