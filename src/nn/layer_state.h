#pragma once

#include <ATen/ATen.h>

#include <vector>

namespace comba::nn {

/// What one layer remembers between two calls on the same token stream: tails of short convolutions and a recurrent
/// state, or keys and values. Each layer knows the meaning of its own tensors.
/// The tensors are advanced in place: clone them to fork a stream.
struct LayerState {
  std::vector<at::Tensor> tensors;
};

/// Where the tokens of one call stand.
struct TokenSpan {
  at::Tensor cu_seqlens;       ///< [N + 1] i32 or i64  borders of packed sequences; needs B = 1. Undefined: none
  int64_t first_position = 0;  ///< of the first token in its stream: tokens seen by earlier calls
};

}  // namespace comba::nn
