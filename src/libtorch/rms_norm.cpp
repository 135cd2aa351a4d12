#include "libtorch/rms_norm.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "base/message.h"
#include "libtorch/error_translation.h"
#include "libtorch/fused.h"
#include "libtorch/rms_norm_cuda.h"
#include "libtorch/rows.h"
#include "libtorch/threads.h"

namespace comba {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using MaybeTensor = std::optional<at::Tensor>;

std::string_view name_of(GateFunction function) { return function == GateFunction::sigmoid ? "sigmoid" : "silu"; }

void require_shapes(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& gate) {
  require(weight.dim() == 1 && x.dim() >= 1 && x.sym_size(-1) == weight.sym_size(0) && weight.sym_size(0) >= 1,
          ErrorCode::invalid_argument, "[rms_norm] weight must be [D] and x [..., D]; got ", weight.sym_sizes(),
          " and ", x.sym_sizes());
  require(!gate.defined() || gate.sym_sizes() == x.sym_sizes(), ErrorCode::invalid_argument,
          "[rms_norm] gate must have the shape of x, ", x.sym_sizes(), "; got ",
          gate.defined() ? gate.sym_sizes() : c10::SymIntArrayRef());
}

at::Tensor definition(const at::Tensor& x, const at::Tensor& weight, double eps, const at::Tensor& gate,
                      GateFunction function) {
  const at::Tensor wide = x.to(at::promote_types(x.scalar_type(), at::kFloat));
  const at::Tensor inverse_rms = (wide.square().mean(-1, /*keepdim=*/true) + eps).rsqrt();
  at::Tensor y = wide * inverse_rms * weight;
  if (gate.defined()) y = y * (function == GateFunction::sigmoid ? at::sigmoid(gate) : at::silu(gate));
  return y.to(x.scalar_type());
}

const float* data_of(const at::Tensor& tensor) { return tensor.defined() ? tensor.const_data_ptr<float>() : nullptr; }

at::Tensor dense(const MaybeTensor& tensor) { return tensor ? tensor->contiguous() : at::Tensor(); }

// The kernels as operators of their own, of any strides: for fp32 tensors on the CPU, for most on a GPU.
// inverse_rms is 1 / sqrt(mean(x^2) + eps) of each row, for backward.  [x.numel() / D]
std::tuple<at::Tensor, at::Tensor> forward_on_cpu(const at::Tensor& x, const at::Tensor& weight,
                                                  const MaybeTensor& gate, std::string_view gate_function, double eps) {
  use_torch_threads_once();
  const at::Tensor dense_x = x.contiguous(), dense_weight = weight.contiguous(), dense_gate = dense(gate);
  const at::Tensor y = at::empty(x.sizes(), x.options());
  const int64_t rows = x.numel() / weight.numel();
  const at::Tensor inverse_rms = at::empty({rows}, x.options());
  rms_norm_forward({
      .rows = rows,
      .dim = weight.numel(),
      .x = data_of(dense_x),
      .gate = data_of(dense_gate),
      .weight = data_of(dense_weight),
      .eps = static_cast<float>(eps),
      .function = gate_function_named(gate_function),
      .y = y.mutable_data_ptr<float>(),
      .inverse_rms = inverse_rms.mutable_data_ptr<float>(),
  });
  return {y, inverse_rms};
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> backward_on_cpu(const at::Tensor& dy, const at::Tensor& x,
                                                               const at::Tensor& weight, const MaybeTensor& gate,
                                                               const at::Tensor& inverse_rms,
                                                               std::string_view gate_function) {
  use_torch_threads_once();
  const at::Tensor dense_dy = dy.contiguous(), dense_x = x.contiguous(), dense_weight = weight.contiguous();
  const at::Tensor dense_gate = dense(gate);
  const at::Tensor dx = at::empty(x.sizes(), x.options());
  const at::Tensor dweight = at::empty(weight.sizes(), x.options());
  const at::Tensor dgate = at::empty(gate ? gate->sizes() : at::IntArrayRef({0}), x.options());
  const at::Tensor partial_sums = at::empty({rms_norm_num_slabs(inverse_rms.numel()), weight.numel()}, x.options());
  rms_norm_backward({
      .rows = inverse_rms.numel(),
      .dim = weight.numel(),
      .dy = data_of(dense_dy),
      .x = data_of(dense_x),
      .gate = data_of(dense_gate),
      .weight = data_of(dense_weight),
      .inverse_rms = data_of(inverse_rms),
      .function = gate_function_named(gate_function),
      .dx = dx.mutable_data_ptr<float>(),
      .dgate = gate ? dgate.mutable_data_ptr<float>() : nullptr,
      .dweight = dweight.mutable_data_ptr<float>(),
      .partial_sums = partial_sums.mutable_data_ptr<float>(),
  });
  return {dx, dweight, dgate};
}

std::tuple<at::Tensor, at::Tensor> forward_of_shapes(const at::Tensor& x, const at::Tensor& weight, const MaybeTensor&,
                                                     std::string_view, double) {
  return {at::empty_symint(x.sym_sizes(), x.options()),
          at::empty_symint({x.sym_numel() / weight.sym_numel()}, x.options().dtype(at::kFloat))};
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> backward_of_shapes(const at::Tensor&, const at::Tensor& x,
                                                                  const at::Tensor& weight, const MaybeTensor& gate,
                                                                  const at::Tensor&, std::string_view) {
  return {at::empty_symint(x.sym_sizes(), x.options()), at::empty_symint(weight.sym_sizes(), weight.options()),
          gate ? at::empty_symint(gate->sym_sizes(), x.options()) : at::empty({0}, x.options())};
}

std::tuple<at::Tensor, at::Tensor> call_forward(const at::Tensor& x, const at::Tensor& weight, const MaybeTensor& gate,
                                                std::string_view gate_function, double eps) {
  static const auto op =
      c10::Dispatcher::singleton().findSchemaOrThrow("comba::rms_norm_fused", "").typed<decltype(forward_on_cpu)>();
  return op.call(x, weight, gate, gate_function, eps);
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> call_backward(const at::Tensor& dy, const at::Tensor& x,
                                                             const at::Tensor& weight, const MaybeTensor& gate,
                                                             const at::Tensor& inverse_rms,
                                                             std::string_view gate_function) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("comba::rms_norm_fused_backward", "")
                             .typed<decltype(backward_on_cpu)>();
  return op.call(dy, x, weight, gate, inverse_rms, gate_function);
}

class FusedRmsNorm : public torch::autograd::Function<FusedRmsNorm> {
 public:
  static variable_list forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& weight,
                               const MaybeTensor& gate, const std::string& gate_function, double eps) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    const auto [y, inverse_rms] = call_forward(x, weight, gate, gate_function, eps);
    context->save_for_backward({x, weight, gate.value_or(at::Tensor()), inverse_rms});
    context->mark_non_differentiable({inverse_rms});
    context->saved_data["gate_function"] = gate_function;
    return {y, inverse_rms};
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    refuse_second_derivative("rms_norm");
    const variable_list saved = context->get_saved_variables();
    const MaybeTensor gate = saved[2].defined() ? MaybeTensor(saved[2]) : std::nullopt;
    const std::string& gate_function = context->saved_data["gate_function"].toStringRef();
    const auto [dx, dweight, dgate] = call_backward(gradients[0], saved[0], saved[1], gate, saved[3], gate_function);
    return {dx, dweight, gate ? dgate : at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

std::tuple<at::Tensor, at::Tensor> with_autograd(const at::Tensor& x, const at::Tensor& weight, const MaybeTensor& gate,
                                                 std::string_view gate_function, double eps) {
  const variable_list outputs = FusedRmsNorm::apply(x, weight, gate, std::string(gate_function), eps);
  return {outputs[0], outputs[1]};
}

at::Tensor from_dispatcher(const at::Tensor& x, const at::Tensor& weight, const MaybeTensor& gate,
                           std::string_view gate_function, double eps) {
  return translated(
      [&] { return rms_norm(x, weight, eps, gate.value_or(at::Tensor()), gate_function_named(gate_function)); });
}

TORCH_LIBRARY_FRAGMENT(comba, library) {
  const std::string gate = "Tensor? gate=None, ", function = "str gate_function='silu'";
  const std::string options = "*, " + function + ", float eps=1e-06) -> ";
  library.def(("rms_norm(Tensor x, Tensor weight, " + gate + options + "Tensor").c_str(), TORCH_FN(from_dispatcher));
  library.def(("rms_norm_fused(Tensor x, Tensor weight, " + gate + options + "(Tensor y, Tensor inverse_rms)").c_str());
  library.def(("rms_norm_fused_backward(Tensor dy, Tensor x, Tensor weight, Tensor? gate, Tensor inverse_rms, *, " +
               function + ") -> (Tensor dx, Tensor dweight, Tensor dgate)")
                  .c_str());
}

TORCH_LIBRARY_IMPL(comba, CPU, library) {
  library.impl("rms_norm_fused", TORCH_FN(forward_on_cpu));
  library.impl("rms_norm_fused_backward", TORCH_FN(backward_on_cpu));
}

TORCH_LIBRARY_IMPL(comba, CUDA, library) {
  library.impl("rms_norm_fused", TORCH_FN(rms_norm_on_cuda));
  library.impl("rms_norm_fused_backward", TORCH_FN(rms_norm_backward_on_cuda));
}

TORCH_LIBRARY_IMPL(comba, Meta, library) {
  library.impl("rms_norm_fused", TORCH_FN(forward_of_shapes));
  library.impl("rms_norm_fused_backward", TORCH_FN(backward_of_shapes));
}

TORCH_LIBRARY_IMPL(comba, Autograd, library) {
  library.impl("rms_norm_fused", TORCH_FN(with_autograd));
  library.impl("rms_norm_fused_backward", torch::autograd::autogradNotImplementedFallback());
}

}  // namespace

GateFunction gate_function_named(std::string_view name) {
  require(name == "sigmoid" || name == "silu", ErrorCode::invalid_argument,
          "[rms_norm] gate_function must be sigmoid or silu; got ", name);
  return name == "sigmoid" ? GateFunction::sigmoid : GateFunction::silu;
}

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps, const at::Tensor& gate,
                    GateFunction function) {
  require_shapes(x, weight, gate);
  const MaybeTensor given = gate.defined() ? MaybeTensor(gate) : std::nullopt;
  if (suit_gpu_kernels({x, weight, gate}) && (!gate.defined() || gate.scalar_type() == x.scalar_type())) {
    return std::get<0>(call_forward(x, weight, given, name_of(function), eps));
  }
  if (is_computed_in_floats(x, weight)) {
    const at::Tensor wide_gate = gate.defined() ? gate.to(at::kFloat) : gate;
    return rms_norm(x.to(at::kFloat), weight.to(at::kFloat), eps, wide_gate, function).to(x.scalar_type());
  }
  if (!are_cpu_floats({x, weight, gate})) return definition(x, weight, eps, gate, function);
  return std::get<0>(call_forward(x, weight, given, name_of(function), eps));
}

}  // namespace comba
