#include "nn/short_convolution.h"

#include "nn/positions.h"

namespace comba::nn {

at::Tensor short_convolution(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& tail,
                             const at::Tensor& cu_seqlens) {
  const int64_t num_tokens = x.size(1);
  const int64_t width = weight.size(2);
  const at::Tensor history = tail.defined() ? tail : at::zeros({x.size(0), width - 1, x.size(2)}, x.options());
  const at::Tensor extended = at::cat({history, x}, /*dim=*/1);
  at::Tensor sum;
  for (int64_t j = 0; j < width; ++j) {
    at::Tensor term = extended.narrow(1, j, num_tokens) * weight.select(2, j).select(1, 0);
    if (cu_seqlens.defined()) {
      const at::Tensor inside = positions_in_sequences(cu_seqlens, num_tokens) >= width - 1 - j;
      term = at::where(inside.view({1, num_tokens, 1}), term, at::zeros({}, term.options()));
    }
    sum = sum.defined() ? sum + term : term;
  }
  return at::silu(sum);
}

at::Tensor ShortConvolution::forward(const at::Tensor& x, const TokenSpan& span, at::Tensor* tail) {
  if (tail == nullptr) return short_convolution(x, weight_, {}, span.cu_seqlens);
  const at::Tensor y = short_convolution(x, weight_, *tail, span.cu_seqlens);
  const int64_t remembered = tail->size(1);
  tail->copy_(at::cat({*tail, x.detach()}, /*dim=*/1).narrow(1, x.size(1), remembered));
  return y;
}

at::Tensor ShortConvolution::initial_tail(int64_t batch) const {
  return at::zeros({batch, weight_.size(2) - 1, weight_.size(0)}, weight_.options().requires_grad(false));
}

}  // namespace comba::nn
