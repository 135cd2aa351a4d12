#pragma once

#include <memory>

#include "nn/linear.h"
#include "nn/mixers/mixer.h"
#include "nn/rms_norm.h"

namespace comba::nn {

struct GatedSlotAttentionOptions {
  int64_t hidden_size = 0;  ///< D
  int64_t num_heads = 0;    ///< H;  K = V = D / H
  int64_t num_slots = 0;    ///< M
  double norm_eps = 1e-5;
  double gate_root = 8;  ///< a = sigmoid(.)^(1 / gate_root)
};

/// Gated slot attention (arXiv 2409.07146): softmax over M slots, each of which keeps a key and a value that decay.
///     a = sigmoid(x W_f)^(1/8),   S_k = diag(a) S_k + (1 - a) k^T,   S_v = diag(a) S_v + (1 - a) v^T
///     o = S_v^T softmax(S_k q),   y = norm(silu(o)) W_o        with q, k, v behind SiLU
/// Parameters, by flash-linear-attention's names: {q,k,v,f,o}_proj.weight, g_norm.weight [D].
/// State: S_k^T [B, H, K, M] and S_v [B, H, M, V], f32.
class GatedSlotAttentionMixer : public Mixer {
 public:
  GatedSlotAttentionMixer(const GatedSlotAttentionOptions& options, const at::TensorOptions& tensor_options);

  at::Tensor forward(const at::Tensor& x, const TokenSpan& span, LayerState* state) override;
  LayerState initial_state(int64_t batch) const override;
  MixerFacts facts(int64_t num_tokens) const override;

 private:
  GatedSlotAttentionOptions options_;
  std::shared_ptr<Linear> q_proj_, k_proj_, v_proj_, f_proj_, o_proj_;
  std::shared_ptr<RMSNorm> g_norm_;
};

}  // namespace comba::nn
