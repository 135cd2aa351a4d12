#include "nn/rms_norm.h"

#include <torch/csrc/autograd/custom_function.h>

#include "libtorch/threads.h"
#include "nn/fused.h"

namespace comba::nn {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

at::Tensor definition(const at::Tensor& x, const at::Tensor& weight, double eps, const at::Tensor& gate,
                      GateFunction function) {
  const at::Tensor wide = x.to(at::promote_types(x.scalar_type(), at::kFloat));
  const at::Tensor inverse_rms = (wide.square().mean(-1, /*keepdim=*/true) + eps).rsqrt();
  at::Tensor y = wide * inverse_rms * weight;
  if (gate.defined()) y = y * (function == GateFunction::sigmoid ? at::sigmoid(gate) : at::silu(gate));
  return y.to(x.scalar_type());
}

const float* data_of(const at::Tensor& tensor) { return tensor.defined() ? tensor.const_data_ptr<float>() : nullptr; }

/// The definition's kernel for dense fp32 tensors on the CPU.
class FusedRmsNorm : public torch::autograd::Function<FusedRmsNorm> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& weight,
                            const std::optional<at::Tensor>& gate, double eps, GateFunction function) {
    use_torch_threads_once();
    const at::Tensor y = at::empty_like(x);
    const int64_t rows = x.numel() / weight.numel();
    const at::Tensor inverse_rms = at::empty({rows}, x.options());
    rms_norm_forward({
        .rows = rows,
        .dim = weight.numel(),
        .x = data_of(x),
        .gate = gate ? data_of(*gate) : nullptr,
        .weight = data_of(weight),
        .eps = static_cast<float>(eps),
        .function = function,
        .y = y.mutable_data_ptr<float>(),
        .inverse_rms = inverse_rms.mutable_data_ptr<float>(),
    });
    context->save_for_backward({x, weight, inverse_rms, gate.value_or(at::Tensor())});
    context->saved_data["function"] = static_cast<int64_t>(function);
    return y;
  }

  static variable_list backward(AutogradContext* context, const variable_list& dy) {
    refuse_second_derivative("rms_norm");
    const variable_list saved = context->get_saved_variables();
    const at::Tensor &x = saved[0], &weight = saved[1], &inverse_rms = saved[2], &gate = saved[3];
    const at::Tensor dense_dy = dy[0].contiguous();
    const at::Tensor dx = at::empty_like(x);
    const at::Tensor dweight = at::empty_like(weight);
    const at::Tensor dgate = gate.defined() ? at::empty_like(gate) : at::Tensor();
    const at::Tensor partial_sums = at::empty({rms_norm_num_slabs(inverse_rms.numel()), weight.numel()}, x.options());
    rms_norm_backward({
        .rows = inverse_rms.numel(),
        .dim = weight.numel(),
        .dy = data_of(dense_dy),
        .x = data_of(x),
        .gate = data_of(gate),
        .weight = data_of(weight),
        .inverse_rms = data_of(inverse_rms),
        .function = static_cast<GateFunction>(context->saved_data["function"].toInt()),
        .dx = dx.mutable_data_ptr<float>(),
        .dgate = dgate.defined() ? dgate.mutable_data_ptr<float>() : nullptr,
        .dweight = dweight.mutable_data_ptr<float>(),
        .partial_sums = partial_sums.mutable_data_ptr<float>(),
    });
    return {dx, dweight, dgate, at::Tensor(), at::Tensor()};
  }
};

}  // namespace

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps, const at::Tensor& gate,
                    GateFunction function) {
  if (x.scalar_type() != weight.scalar_type() && weight.scalar_type() == at::kFloat) {
    const at::Tensor wide_gate = gate.defined() ? gate.to(at::kFloat) : gate;
    return rms_norm(x.to(at::kFloat), weight, eps, wide_gate, function).to(x.scalar_type());
  }
  if (!are_cpu_floats({x, weight, gate})) return definition(x, weight, eps, gate, function);
  const auto dense_gate = gate.defined() ? std::optional(gate.contiguous()) : std::nullopt;
  return FusedRmsNorm::apply(x.contiguous(), weight.contiguous(), dense_gate, eps, function);
}

}  // namespace comba::nn
