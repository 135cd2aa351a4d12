#pragma once

#include <memory>
#include <utility>

#include "nn/linear.h"
#include "nn/mixers/decay_attention.h"
#include "nn/mixers/mixer.h"
#include "nn/rms_norm.h"

namespace comba::nn {

enum class FeatureMap { identity, relu, elu };  ///< elu: elu(x) + 1

struct LinearAttentionOptions {
  int64_t hidden_size = 0;  ///< D
  int64_t num_heads = 0;    ///< H
  int64_t head_k_dim = 0;   ///< K
  int64_t head_v_dim = 0;   ///< V
  double norm_eps = 1e-5;
  FeatureMap feature_map = FeatureMap::identity;
};

/// Linear attention (arXiv 2006.16236), without its normaliser, as RetNet's authors proposed: the norm does its work.
///     S_t = S_{t-1} + v_t f(k_t)^T,   o = S f(q) / sqrt(K),   y = norm(o) W_o
/// And what RetNet and GLA share: they turn or decay, and gate the norm by silu(x W_g).
/// Parameters, by flash-linear-attention's names: {q,k,v,o}_proj.weight, norm.weight [V]; with a gate g_proj.weight,
/// and the norm is g_norm_swish_gate.weight. State: S^T [B, H, K, V] f32.
class LinearAttentionMixer : public Mixer {
 public:
  LinearAttentionMixer(const LinearAttentionOptions& options, const at::TensorOptions& tensor_options)
      : LinearAttentionMixer(options, tensor_options, /*is_gated=*/false) {}

  at::Tensor forward(const at::Tensor& x, const TokenSpan& span, LayerState* state) override;
  LayerState initial_state(int64_t batch) const override;
  MixerFacts facts(int64_t num_tokens) const override;

 protected:
  LinearAttentionMixer(const LinearAttentionOptions& options, const at::TensorOptions& tensor_options, bool is_gated);

  /// q or k [B, T, H, K] as it meets the state.
  virtual at::Tensor direction(const at::Tensor& projected, const TokenSpan& span) const;

  /// Sets decay_of and g.
  virtual void set_decay(DecayAttentionInputs&, const at::Tensor& /*x*/) {}

  LinearAttentionOptions options_;

 private:
  std::shared_ptr<Linear> q_proj_, k_proj_, v_proj_, g_proj_, o_proj_;
  std::shared_ptr<GatedRMSNorm> norm_;
};

}  // namespace comba::nn
