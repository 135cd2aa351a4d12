#pragma once

#include <ATen/ATen.h>

#include <functional>

namespace comba::nn {

/// function(first token, number of tokens) of each packed sequence that has tokens, side by side along `dim`; without
/// borders (an undefined tensor) of all the tokens at once.
at::Tensor over_sequences(const at::Tensor& cu_seqlens, int64_t num_tokens, int64_t dim,
                          const std::function<at::Tensor(int64_t begin, int64_t length)>& function);

}  // namespace comba::nn
