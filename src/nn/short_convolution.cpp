#include "nn/short_convolution.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/custom_function.h>

#include "libtorch/columns.h"
#include "libtorch/fused.h"
#include "libtorch/rows.h"
#include "libtorch/short_convolution_cuda.h"

namespace comba::nn {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// The convolution of neighbouring columns as one, on a GPU.
class JoinedConvolution : public torch::autograd::Function<JoinedConvolution> {
 public:
  static variable_list forward(AutogradContext* context, at::TensorList x, at::TensorList weights,
                               const std::optional<at::Tensor>& cu_seqlens) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    variable_list saved = x.vec();
    saved.insert(saved.end(), weights.begin(), weights.end());
    saved.push_back(cu_seqlens.value_or(at::Tensor()));
    context->save_for_backward(saved);
    context->set_materialize_grads(false);
    const at::Tensor y = short_convolution_on_cuda(joined_columns(x), joined_rows(weights), std::nullopt, cu_seqlens);
    return cut_columns(y, widths_of(x));
  }

  static variable_list backward(AutogradContext* context, const variable_list& dy) {
    refuse_second_derivative("short_convolution");
    const variable_list saved = context->get_saved_variables();
    const at::TensorList x(saved.data(), dy.size()), weights(saved.data() + dy.size(), dy.size());
    const std::optional<at::Tensor> cu_seqlens = saved.back().defined() ? std::optional(saved.back()) : std::nullopt;
    const at::Tensor joined = joined_columns(x), dx = empty_gradient_with_room(joined);
    const at::Tensor dweight = short_convolution_backward_into(dx, gather_columns(dy, widths_of(x)), joined,
                                                               joined_rows(weights), std::nullopt, cu_seqlens);
    variable_list result = cut_columns(dx, widths_of(x));
    for (const at::Tensor& of_one : cut_rows(dweight, widths_of(x))) result.push_back(of_one);
    result.emplace_back();
    return result;
  }

 private:
  static std::vector<int64_t> widths_of(at::TensorList x) {
    std::vector<int64_t> widths;
    for (const at::Tensor& tensor : x) widths.push_back(tensor.size(-1));
    return widths;
  }
};

bool suit_joined_convolution(at::TensorList x, at::TensorList weights) {
  return suit_gpu_kernels({x[0], weights[0]}) && suits_convolution_kernel(weights[0]) && joined_columns(x).defined() &&
         joined_rows(weights).defined();
}

}  // namespace

std::vector<at::Tensor> short_convolutions(at::TensorList x, at::TensorList weights, const at::Tensor& cu_seqlens) {
  if (suit_joined_convolution(x, weights)) {
    return JoinedConvolution::apply(x, weights, cu_seqlens.defined() ? std::optional(cu_seqlens) : std::nullopt);
  }
  std::vector<at::Tensor> results;
  for (std::size_t i = 0; i < x.size(); ++i) results.push_back(short_convolution(x[i], weights[i], {}, cu_seqlens));
  return results;
}

at::Tensor ShortConvolution::forward(const at::Tensor& x, const TokenSpan& span, at::Tensor* tail) {
  if (tail == nullptr) return short_convolution(x, weight_, {}, span.cu_seqlens);
  if (!at::GradMode::is_enabled() && !span.cu_seqlens.defined()) return short_convolution_step(x, weight_, *tail);
  at::Tensor y = short_convolution(x, weight_, *tail, span.cu_seqlens);
  tail->copy_(at::cat({*tail, x.detach()}, /*dim=*/1).narrow(1, x.size(1), tail->size(1)));
  return y;
}

at::Tensor ShortConvolution::initial_tail(int64_t batch) const {
  return at::zeros({batch, weight_.size(2) - 1, weight_.size(0)}, weight_.options().requires_grad(false));
}

}  // namespace comba::nn
