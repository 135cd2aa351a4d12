#include "nn/swiglu.h"

#include <torch/csrc/autograd/custom_function.h>

#include "libtorch/fused.h"
#include "libtorch/threads.h"
#include "operators/swiglu/swiglu.h"

namespace comba::nn {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// silu(gate) up for dense fp32 tensors on the CPU.
class FusedSwiglu : public torch::autograd::Function<FusedSwiglu> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& gate, const at::Tensor& up) {
    use_torch_threads_once();
    const at::Tensor y = at::empty_like(gate);
    swiglu_forward({
        .count = gate.numel(),
        .gate = gate.const_data_ptr<float>(),
        .up = up.const_data_ptr<float>(),
        .y = y.mutable_data_ptr<float>(),
    });
    context->save_for_backward({gate, up});
    return y;
  }

  static variable_list backward(AutogradContext* context, const variable_list& dy) {
    refuse_second_derivative("swiglu");
    const variable_list saved = context->get_saved_variables();
    const at::Tensor &gate = saved[0], &up = saved[1];
    const at::Tensor dense_dy = dy[0].contiguous();
    const at::Tensor dgate = at::empty_like(gate);
    const at::Tensor dup = at::empty_like(up);
    swiglu_backward({
        .count = gate.numel(),
        .dy = dense_dy.const_data_ptr<float>(),
        .gate = gate.const_data_ptr<float>(),
        .up = up.const_data_ptr<float>(),
        .dgate = dgate.mutable_data_ptr<float>(),
        .dup = dup.mutable_data_ptr<float>(),
    });
    return {dgate, dup};
  }
};

}  // namespace

at::Tensor swiglu(const at::Tensor& gate, const at::Tensor& up) {
  if (!are_cpu_floats({gate, up})) return at::silu(gate) * up;
  return FusedSwiglu::apply(gate.contiguous(), up.contiguous());
}

}  // namespace comba::nn
