#include "libtorch/rms_norm_cuda.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <torch/csrc/autograd/custom_function.h>

#include "libtorch/call_scope.h"
#include "libtorch/fused.h"
#include "libtorch/rms_norm.h"
#include "libtorch/rows.h"
#include "operators/rms_norm/cuda/rms_norm.h"

namespace comba {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

at::Tensor dense_like(const at::Tensor& x) { return at::empty(x.sizes(), x.options()); }

at::Tensor partial_sums(const at::Tensor& weight) {
  return at::empty({cuda::rms_norm_num_parts(), weight.numel()}, weight.options().dtype(at::kFloat));
}

/// One pass forward and one backward over the residual stream, a branch of it and the normed result.
class RmsNormOfStream : public torch::autograd::Function<RmsNormOfStream> {
 public:
  static variable_list forward(AutogradContext* context, const at::Tensor& stream, const at::Tensor& branch,
                               const at::Tensor& weight, double eps, at::ScalarType dtype) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    const bool has_branch = branch.numel() > 0 || stream.numel() == 0;
    const at::Tensor regular_stream = with_regular_rows(stream);
    const at::Tensor regular_branch = has_branch ? with_regular_rows(branch) : at::Tensor();
    const at::Tensor dense_weight = weight.contiguous();
    const at::Tensor sum = has_branch ? dense_like(stream) : regular_stream;
    const at::Tensor normed = at::empty(stream.sizes(), stream.options().dtype(dtype));
    const int64_t dim = weight.numel(), rows = stream.numel() / dim;
    const at::Tensor inverse_rms = at::empty({rows}, stream.options().dtype(at::kFloat));
    CallScope scope(stream.device());
    cuda::rms_norm_forward({
        .rows = rows,
        .dim = dim,
        .x_dtype = float_dtype(stream),
        .y_dtype = float_dtype(normed),
        .weight_dtype = float_dtype(weight),
        .x = const_rows(regular_stream),
        .branch = const_rows(regular_branch),
        .gate = {},
        .weight = dense_weight.const_data_ptr(),
        .eps = static_cast<float>(eps),
        .x_new = has_branch ? mutable_rows(sum) : cuda::Rows(),
        .y = mutable_rows(normed),
        .inverse_rms = inverse_rms.mutable_data_ptr<float>(),
        .stream = scope.execution().stream,
    });
    context->set_materialize_grads(false);
    context->save_for_backward({sum.detach(), dense_weight, inverse_rms});
    context->saved_data["has_branch"] = has_branch;
    context->saved_data["dtype"] = static_cast<int64_t>(dtype);
    // A view of an input would be tied to it; an alias is a result like any other.
    return {has_branch ? sum : at::alias(stream), normed};
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    refuse_second_derivative("rms_norm");
    const variable_list saved = context->get_saved_variables();
    const at::Tensor &sum = saved[0], &weight = saved[1];
    const bool has_branch = context->saved_data["has_branch"].toBool();
    const auto dtype = static_cast<at::ScalarType>(context->saved_data["dtype"].toInt());
    const at::Tensor& d_sum = gradients[0];
    if (!gradients[1].defined()) {
      const at::Tensor d_branch = has_branch && d_sum.defined() ? d_sum.to(dtype) : at::Tensor();
      return {d_sum, d_branch, at::Tensor(), at::Tensor(), at::Tensor()};
    }
    const at::Tensor d_normed = with_regular_rows(gradients[1]), d_passed = with_regular_rows(d_sum);
    const at::Tensor d_stream = dense_like(sum), dweight = dense_like(weight), parts = partial_sums(weight);
    const bool is_one_dtype = dtype == sum.scalar_type();
    at::Tensor d_branch;
    if (has_branch) d_branch = is_one_dtype ? d_stream : at::empty(sum.sizes(), sum.options().dtype(dtype));
    CallScope scope(sum.device());
    cuda::rms_norm_backward({
        .rows = saved[2].numel(),
        .dim = weight.numel(),
        .x_dtype = float_dtype(sum),
        .y_dtype = float_dtype(d_normed),
        .weight_dtype = float_dtype(weight),
        .dy = const_rows(d_normed),
        .x = const_rows(sum),
        .gate = {},
        .d_x_new = const_rows(d_passed),
        .weight = weight.const_data_ptr(),
        .inverse_rms = saved[2].const_data_ptr<float>(),
        .dx = mutable_rows(d_stream),
        .dbranch = has_branch && !is_one_dtype ? mutable_rows(d_branch) : cuda::Rows(),
        .dgate = {},
        .dweight = dweight.mutable_data_ptr(),
        .partial_sums = parts.mutable_data_ptr<float>(),
        .stream = scope.execution().stream,
    });
    return {d_stream, d_branch, dweight, at::Tensor(), at::Tensor()};
  }
};

/// Whether the kernels take a residual stream of this dtype beside such branches.
bool suit_stream_kernels(const at::Tensor& stream, const at::Tensor& branch, const at::Tensor& weight,
                         at::ScalarType dtype) {
  return suit_gpu_kernels({stream, branch, weight}) &&
         (dtype == at::kBFloat16 || dtype == at::kHalf || dtype == at::kFloat) &&
         (!branch.defined() || branch.scalar_type() == dtype) &&
         (stream.scalar_type() == dtype || stream.scalar_type() == at::kFloat);
}

}  // namespace

std::tuple<at::Tensor, at::Tensor> rms_norm_on_cuda(const at::Tensor& x, const at::Tensor& weight,
                                                    const std::optional<at::Tensor>& gate,
                                                    std::string_view gate_function, double eps) {
  const at::Tensor regular_x = with_regular_rows(x), dense_weight = weight.contiguous();
  const at::Tensor regular_gate = gate ? with_regular_rows(*gate) : at::Tensor();
  const at::Tensor y = dense_like(x);
  const int64_t rows = x.numel() / weight.numel();
  const at::Tensor inverse_rms = at::empty({rows}, x.options().dtype(at::kFloat));
  CallScope scope(x.device());
  cuda::rms_norm_forward({
      .rows = rows,
      .dim = weight.numel(),
      .x_dtype = float_dtype(x),
      .y_dtype = float_dtype(x),
      .weight_dtype = float_dtype(weight),
      .x = const_rows(regular_x),
      .branch = {},
      .gate = const_rows(regular_gate),
      .weight = dense_weight.const_data_ptr(),
      .eps = static_cast<float>(eps),
      .function = gate_function_named(gate_function),
      .x_new = {},
      .y = mutable_rows(y),
      .inverse_rms = inverse_rms.mutable_data_ptr<float>(),
      .stream = scope.execution().stream,
  });
  return {y, inverse_rms};
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> rms_norm_backward_on_cuda(const at::Tensor& dy, const at::Tensor& x,
                                                                         const at::Tensor& weight,
                                                                         const std::optional<at::Tensor>& gate,
                                                                         const at::Tensor& inverse_rms,
                                                                         std::string_view gate_function) {
  const at::Tensor regular_dy = with_regular_rows(dy), regular_x = with_regular_rows(x);
  const at::Tensor regular_gate = gate ? with_regular_rows(*gate) : at::Tensor(), dense_weight = weight.contiguous();
  const at::Tensor dx = dense_like(x), dweight = dense_like(weight), parts = partial_sums(weight);
  const at::Tensor dgate = gate ? dense_like(*gate) : at::empty({0}, x.options());
  CallScope scope(x.device());
  cuda::rms_norm_backward({
      .rows = inverse_rms.numel(),
      .dim = weight.numel(),
      .x_dtype = float_dtype(x),
      .y_dtype = float_dtype(x),
      .weight_dtype = float_dtype(weight),
      .dy = const_rows(regular_dy),
      .x = const_rows(regular_x),
      .gate = const_rows(regular_gate),
      .d_x_new = {},
      .weight = dense_weight.const_data_ptr(),
      .inverse_rms = inverse_rms.const_data_ptr<float>(),
      .function = gate_function_named(gate_function),
      .dx = mutable_rows(dx),
      .dbranch = {},
      .dgate = gate ? mutable_rows(dgate) : cuda::Rows(),
      .dweight = dweight.mutable_data_ptr(),
      .partial_sums = parts.mutable_data_ptr<float>(),
      .stream = scope.execution().stream,
  });
  return {dx, dweight, dgate};
}

NormedStream rms_norm_of_stream(const at::Tensor& stream, const at::Tensor& branch, const at::Tensor& weight,
                                double eps, at::ScalarType dtype) {
  if (!suit_stream_kernels(stream, branch, weight, dtype)) {
    const at::Tensor sum = branch.defined() ? stream + branch : stream;
    return {sum, rms_norm(sum, weight, eps).to(dtype)};
  }
  // LibTorch's Function takes no undefined tensor.
  const at::Tensor none = at::empty({0}, stream.options().dtype(dtype));
  const variable_list outputs = RmsNormOfStream::apply(stream, branch.defined() ? branch : none, weight, eps, dtype);
  return {outputs[0], outputs[1]};
}

}  // namespace comba
