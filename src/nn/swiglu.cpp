#include "nn/swiglu.h"

namespace comba::nn {

at::Tensor swiglu(const at::Tensor& gate, const at::Tensor& up) { return at::silu(gate) * up; }

}  // namespace comba::nn
