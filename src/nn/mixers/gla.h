#pragma once

#include "nn/mixers/linear_attention.h"

namespace comba::nn {

/// Gated linear attention (arXiv 2312.06635): each key channel decays by a = sigmoid(x W_1 W_2 + bias)^(1/16).
/// Parameters: {q,k,v,g,o}_proj.weight, gk_proj.0.weight [16, D], gk_proj.1.{weight [H K, 16], bias [H K]},
/// g_norm_swish_gate.weight [V].
class GLAMixer : public LinearAttentionMixer {
 public:
  GLAMixer(const LinearAttentionOptions& options, const at::TensorOptions& tensor_options);

  MixerFacts facts(int64_t num_tokens) const override;

 protected:
  void set_decay(DecayAttentionInputs& inputs, const at::Tensor& x) override;

 private:
  std::shared_ptr<Linear> down_, up_;
};

}  // namespace comba::nn
