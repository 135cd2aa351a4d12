#pragma once

#include <functional>
#include <memory>
#include <utility>

#include "comba/delta_rule.h"
#include "libtorch/delta_rule.h"
#include "nn/linear.h"
#include "nn/mixers/mixer.h"
#include "nn/rms_norm.h"
#include "nn/short_convolution.h"

namespace comba::nn {

struct CombaOptions {
  int64_t hidden_size = 0;  ///< D
  int64_t num_heads = 0;    ///< H
  int64_t num_v_heads = 0;  ///< HV, a multiple of H
  int64_t head_k_dim = 0;   ///< K
  int64_t head_v_dim = 0;   ///< V
  int64_t conv_size = 4;    ///< W
  double norm_eps = 1e-5;
  DeltaRuleOptions delta_rule;
  GateFunction gate_function = GateFunction::sigmoid;
  bool use_short_conv = true;           ///< false: SiLU alone
  bool use_output_gate = true;          ///< false: norm alone
  bool use_output_correction = true;    ///< q - d k; false: no parameter D
  bool learn_correction_factor = true;  ///< false: D has no gradient
  bool use_inner_decay = true;          ///< b = sigmoid(decay); false: b = 1, no parameter decay
};

/// The Comba layer (arXiv 2506.02475, section 3):
///     q, k, v = silu(conv(x W_q, x W_k, x W_v));   o = delta_rule(q, k, v, ...);   y = (norm(o) f(x W_g)) W_o
/// Parameters, by flash-linear-attention's names: {q,k,v,b,a,g,o}_proj.weight, {q,k,v}_conv1d.weight, A_log [HV],
/// dt_bias [HV], D [H], decay [H], o_norm.weight [V].
/// State: the tails of the three convolutions, where there are any, then the recurrent state [B, HV, K, V] f32.
class CombaMixer : public Mixer {
 public:
  CombaMixer(const CombaOptions& options, const at::TensorOptions& tensor_options);
  const CombaOptions& options() const { return options_; }

  at::Tensor forward(const at::Tensor& x, const TokenSpan& span, LayerState* state) override;
  LayerState initial_state(int64_t batch) const override;
  MixerFacts facts(int64_t num_tokens) const override;

  /// Is shown what each forward pass gives to the operator, before it runs; an empty one ends that.
  using Observer = std::function<void(const DeltaRuleTensors& inputs)>;
  void observe(Observer observer) { observer_ = std::move(observer); }

 private:
  /// What is computed of x alone.  q, k [B, T, H K], v, gate [B, T, HV V], beta_logit, a [B, T, HV]
  struct Projections {
    at::Tensor q, k, v, beta_logit, a, gate;
  };
  Projections project(const at::Tensor& x);
  /// q, k and v through convolution and SiLU.
  void convolve(Projections& y, const TokenSpan& span, LayerState* state);

  CombaOptions options_;
  std::shared_ptr<Linear> q_proj_, k_proj_, v_proj_, b_proj_, a_proj_, g_proj_, o_proj_;
  std::shared_ptr<ShortConvolution> q_conv1d_, k_conv1d_, v_conv1d_;
  std::shared_ptr<GatedRMSNorm> o_norm_;
  at::Tensor A_log_, dt_bias_, D_, decay_;
  Observer observer_;
};

}  // namespace comba::nn
