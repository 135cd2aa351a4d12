#include "nn/swiglu.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>

#include "libtorch/call_scope.h"
#include "libtorch/columns.h"
#include "libtorch/fused.h"
#include "libtorch/rows.h"
#include "libtorch/threads.h"
#include "nn/joined_linear.h"
#include "operators/swiglu/cuda/swiglu.h"
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
    at::Tensor y = at::empty_like(gate);
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

/// The same on a GPU. Gradients of gate and up that are columns of one tensor are columns of one, too.
class SwigluOnGpu : public torch::autograd::Function<SwigluOnGpu> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& gate, const at::Tensor& up) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    const at::Tensor regular_gate = with_regular_rows(gate), regular_up = with_regular_rows(up);
    at::Tensor y = at::empty(gate.sizes(), gate.options());
    CallScope scope(gate.device());
    cuda::swiglu_forward({
        .rows = gate.numel() / std::max<int64_t>(gate.size(-1), 1),
        .dim = gate.size(-1),
        .dtype = float_dtype(gate),
        .gate = const_rows(regular_gate),
        .up = const_rows(regular_up),
        .y = mutable_rows(y),
        .stream = scope.execution().stream,
    });
    context->save_for_backward({gate, up});
    return y;
  }

  static variable_list backward(AutogradContext* context, const variable_list& dy) {
    refuse_second_derivative("swiglu");
    const variable_list saved = context->get_saved_variables();
    const at::Tensor gate = with_regular_rows(saved[0]), up = with_regular_rows(saved[1]);
    const at::Tensor regular_dy = with_regular_rows(dy[0]), joined = joined_columns({gate, up});
    variable_list gradients = {gate, up};
    if (joined.defined()) {
      gradients = cut_columns(at::empty(joined.sizes(), joined.options()), {gate.size(-1), up.size(-1)});
    } else {
      for (at::Tensor& gradient : gradients) gradient = at::empty(gate.sizes(), gate.options());
    }
    CallScope scope(gate.device());
    cuda::swiglu_backward({
        .rows = gate.numel() / std::max<int64_t>(gate.size(-1), 1),
        .dim = gate.size(-1),
        .dtype = float_dtype(gate),
        .dy = const_rows(regular_dy),
        .gate = const_rows(gate),
        .up = const_rows(up),
        .dgate = mutable_rows(gradients[0]),
        .dup = mutable_rows(gradients[1]),
        .stream = scope.execution().stream,
    });
    return gradients;
  }
};

}  // namespace

SwiGLU::SwiGLU(int64_t hidden_size, int64_t intermediate_size, const at::TensorOptions& options) {
  const auto rows = empty_rows({intermediate_size, intermediate_size}, {hidden_size}, options);
  gate_proj_ = register_module("gate_proj", std::make_shared<Linear>(rows[0]));
  up_proj_ = register_module("up_proj", std::make_shared<Linear>(rows[1]));
  down_proj_ = register_module("down_proj", std::make_shared<Linear>(intermediate_size, hidden_size, options));
}

at::Tensor SwiGLU::forward(const at::Tensor& x) {
  if (gate_proj_->is_int8()) return down_proj_->forward(swiglu(gate_proj_->forward(x), up_proj_->forward(x)));
  const std::vector<at::Tensor> gate_and_up = linear_each(x, {gate_proj_->weight(), up_proj_->weight()});
  return down_proj_->forward(swiglu(gate_and_up[0], gate_and_up[1]));
}

at::Tensor swiglu(const at::Tensor& gate, const at::Tensor& up) {
  const bool are_alike = gate.sizes() == up.sizes() && gate.scalar_type() == up.scalar_type() && gate.dim() > 0;
  if (are_alike && suit_gpu_kernels({gate, up})) return SwigluOnGpu::apply(gate, up);
  if (!are_cpu_floats({gate, up})) return at::silu(gate) * up;
  return FusedSwiglu::apply(gate.contiguous(), up.contiguous());
}

}  // namespace comba::nn
