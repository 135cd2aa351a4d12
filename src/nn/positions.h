#pragma once

#include <ATen/ATen.h>

namespace comba::nn {

/// For packed sequences, each token's place in its own one: 0, 1, .. and 0 again at each border.  [N + 1] -> [T] i64
at::Tensor positions_in_sequences(const at::Tensor& cu_seqlens, int64_t num_tokens);

}  // namespace comba::nn
