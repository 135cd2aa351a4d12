#include "nn/short_convolution.h"

namespace comba::nn {

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
