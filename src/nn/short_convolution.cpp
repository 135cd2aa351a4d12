#include "nn/short_convolution.h"

#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/custom_function.h>

#include "libtorch/threads.h"
#include "nn/fused.h"
#include "nn/positions.h"
#include "operators/short_convolution/short_convolution.h"

namespace comba::nn {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

at::Tensor definition(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& tail,
                      const at::Tensor& cu_seqlens) {
  const int64_t num_tokens = x.size(1);
  const int64_t width = weight.size(2);
  const at::Tensor history = tail.defined() ? tail : at::zeros({x.size(0), width - 1, x.size(2)}, x.options());
  const at::Tensor extended = at::cat({history, x}, /*dim=*/1);
  at::Tensor sum = at::zeros_like(x);
  for (int64_t j = 0; j < width; ++j) {
    at::Tensor input = extended.narrow(1, j, num_tokens);
    if (cu_seqlens.defined()) {
      const at::Tensor inside = positions_in_sequences(cu_seqlens, num_tokens) >= width - 1 - j;
      input = at::where(inside.view({1, num_tokens, 1}), input, at::zeros({}, input.options()));
    }
    sum = sum + input * weight.select(2, j).select(1, 0);
  }
  return at::silu(sum);
}

/// [C, 1, W] -> [W, C]: a filter tap of neighbouring channels side by side.
at::Tensor by_tap(const at::Tensor& weight) { return weight.squeeze(1).t().contiguous(); }

/// The definition's kernel for dense fp32 tensors on the CPU.
class FusedShortConvolution : public torch::autograd::Function<FusedShortConvolution> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& weight,
                            const std::optional<at::Tensor>& tail, const std::vector<int64_t>& borders) {
    use_torch_threads_once();
    const at::Tensor y = at::empty_like(x);
    const at::Tensor taps = by_tap(weight);
    const ShortConvolutionForward args{
        .tokens = x.size(1),
        .channels = x.size(2),
        .x = x.const_data_ptr<float>(),
        .weight = taps.const_data_ptr<float>(),
        .tail = tail ? tail->const_data_ptr<float>() : nullptr,
        .y = y.mutable_data_ptr<float>(),
    };
    short_convolution_forward(args, cut_into_pieces(x.size(0), x.size(1), borders));
    context->save_for_backward({x, weight, tail.value_or(at::Tensor())});
    context->saved_data["borders"] = borders;
    return y;
  }

  static variable_list backward(AutogradContext* context, const variable_list& dy) {
    refuse_second_derivative("short_convolution");
    const variable_list saved = context->get_saved_variables();
    const at::Tensor &x = saved[0], &weight = saved[1], &tail = saved[2];
    const auto pieces = cut_into_pieces(x.size(0), x.size(1), context->saved_data["borders"].toIntVector());
    const at::Tensor dense_dy = dy[0].contiguous();
    const at::Tensor taps = by_tap(weight);
    const at::Tensor dx = at::empty_like(x);
    const at::Tensor dtaps = at::empty({static_cast<int64_t>(pieces.size()), taps.size(0), taps.size(1)}, x.options());
    const ShortConvolutionBackward args{
        .tokens = x.size(1),
        .channels = x.size(2),
        .dy = dense_dy.const_data_ptr<float>(),
        .x = x.const_data_ptr<float>(),
        .weight = taps.const_data_ptr<float>(),
        .tail = tail.defined() ? tail.const_data_ptr<float>() : nullptr,
        .dx = dx.mutable_data_ptr<float>(),
        .dweight = dtaps.mutable_data_ptr<float>(),
    };
    short_convolution_backward(args, pieces);
    return {dx, dtaps.sum(0).t().contiguous().unsqueeze(1), at::Tensor(), at::Tensor()};
  }
};

}  // namespace

at::Tensor short_convolution(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& tail,
                             const at::Tensor& cu_seqlens) {
  if (x.scalar_type() != weight.scalar_type() && weight.scalar_type() == at::kFloat) {
    return short_convolution(x.to(at::kFloat), weight, tail, cu_seqlens).to(x.scalar_type());
  }
  if (weight.size(2) != kShortConvolutionWidth || !are_cpu_floats({x, weight, tail})) {
    return definition(x, weight, tail, cu_seqlens);
  }
  std::optional<at::Tensor> dense_tail;
  if (tail.defined()) {
    // The caller will overwrite the tail, and backward may still read it.
    dense_tail = at::GradMode::is_enabled() ? tail.clone(at::MemoryFormat::Contiguous) : tail.contiguous();
  }
  return FusedShortConvolution::apply(x.contiguous(), weight, dense_tail, sequence_borders(cu_seqlens, x.size(1)));
}

at::Tensor ShortConvolution::forward(const at::Tensor& x, const TokenSpan& span, at::Tensor* tail) {
  if (tail == nullptr) return short_convolution(x, weight_, {}, span.cu_seqlens);
  const at::Tensor y = short_convolution(x, weight_, *tail, span.cu_seqlens);
  tail->copy_(at::cat({*tail, x.detach()}, /*dim=*/1).narrow(1, x.size(1), tail->size(1)));
  return y;
}

at::Tensor ShortConvolution::initial_tail(int64_t batch) const {
  return at::zeros({batch, weight_.size(2) - 1, weight_.size(0)}, weight_.options().requires_grad(false));
}

}  // namespace comba::nn
