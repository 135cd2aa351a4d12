#pragma once

#include <torch/nn/module.h>

#include <string>

#include "nn/layer_state.h"

namespace comba::nn {

/// What a mixer does with its state and what that costs.
struct MixerFacts {
  std::string rule;          ///< how the state S is updated and read, in one line; S is d_v x d_k
  bool closed_loop = false;  ///< whether what is written depends on what the state already holds
  int64_t state_bytes = 0;   ///< of one stream
  double rule_flops = 0;     ///< multiplications and additions a token, token by token, beside those of linear maps
};

/// The part of a block that moves information between tokens.
class Mixer : public torch::nn::Module {
 public:
  /// x [B, T, D] -> [B, T, D].  `state`, when given, is what the layer remembers of the tokens before these; it is
  /// advanced in place. T = 1 is a step. Gradients do not flow from one call to the next.
  virtual at::Tensor forward(const at::Tensor& x, const TokenSpan& span, LayerState* state) = 0;

  /// What the layer remembers before the first token of B streams.
  virtual LayerState initial_state(int64_t batch) const = 0;

  /// After `num_tokens` tokens of one stream.
  virtual MixerFacts facts(int64_t num_tokens) const = 0;

  /// Whether a token's place in its stream matters, so that streams of different lengths cannot be one batch.
  virtual bool knows_positions() const { return false; }
};

/// Bytes of a state's tensors.
int64_t state_bytes(const LayerState& state);

/// Elements of all parameters.
int64_t num_parameters(const torch::nn::Module& module);

/// Multiplications and additions a token in a mixer's linear maps: two for each element of their matrices.
double linear_flops(const torch::nn::Module& mixer);

}  // namespace comba::nn
