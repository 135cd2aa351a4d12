#pragma once

#include <ATen/ATen.h>

#include <vector>

namespace comba {

/// The borders 0 .. T of packed sequences from cu_seqlens [N + 1]; empty for an undefined tensor.
/// Throws Error invalid_argument unless they ascend from 0 to num_tokens.
std::vector<int64_t> sequence_borders(const at::Tensor& cu_seqlens, int64_t num_tokens);

/// Each token's place in its own sequence: 0, 1, .. and 0 again at each border.  [N + 1] -> [T] i64
at::Tensor positions_in_sequences(const at::Tensor& cu_seqlens, int64_t num_tokens);

}  // namespace comba
