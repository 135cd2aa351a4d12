#pragma once

#include "libtorch/positions.h"
#include "nn/layer_state.h"

namespace comba::nn {

/// The token before each one; zeros, or `last` [B, 1, D], before the first. `last`, when given, is advanced in place.
/// x [B, T, D] -> [B, T, D]
inline at::Tensor token_shift(const at::Tensor& x, const TokenSpan& span, at::Tensor* last) {
  const at::Tensor first = last == nullptr ? at::zeros_like(x.narrow(1, 0, 1)) : last->to(x.scalar_type(), false, true);
  at::Tensor shifted = at::cat({first, x.narrow(1, 0, x.size(1) - 1)}, 1);
  if (span.cu_seqlens.defined()) {
    const at::Tensor begins = positions_in_sequences(span.cu_seqlens, x.size(1)).eq(0);  // [T]
    shifted = shifted.masked_fill(begins.view({1, -1, 1}), 0);
  }
  if (last != nullptr) last->copy_(x.detach().narrow(1, x.size(1) - 1, 1));
  return shifted;
}

}  // namespace comba::nn
