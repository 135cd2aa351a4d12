#pragma once

#include <torch/nn/module.h>

#include "nn/layer_state.h"

namespace comba::nn {

/// The part of a block that moves information between tokens.
class Mixer : public torch::nn::Module {
 public:
  /// x [B, T, D] -> [B, T, D].  `state`, when given, is what the layer remembers of the tokens before these; it is
  /// advanced in place. Gradients do not flow from one call to the next.
  virtual at::Tensor forward(const at::Tensor& x, const TokenSpan& span, LayerState* state) = 0;

  /// What the layer remembers before the first token of B streams.
  virtual LayerState initial_state(int64_t batch) const = 0;
};

}  // namespace comba::nn
