#pragma once

#include "nn/mixers/linear_attention.h"

namespace comba::nn {

/// Multi-scale retention (RetNet, arXiv 2307.08621): linear attention with rotary positions, and a fixed decay
/// 1 - 2^(-5 - h) in head h, from 0.
/// Parameters: {q,k,v,g,o}_proj.weight, g_norm_swish_gate.weight [V].
class RetNetMixer : public LinearAttentionMixer {
 public:
  RetNetMixer(const LinearAttentionOptions& options, const at::TensorOptions& tensor_options)
      : LinearAttentionMixer(options, tensor_options, /*is_gated=*/true) {}

  MixerFacts facts(int64_t num_tokens) const override;
  bool knows_positions() const override { return true; }

 protected:
  at::Tensor direction(const at::Tensor& projected, const TokenSpan& span) const override;
  void set_decay(DecayAttentionInputs& inputs, const at::Tensor& x) override;
};

}  // namespace comba::nn
