#pragma once

#include <memory>

#include "nn/linear.h"
#include "nn/mixers/mixer.h"
#include "nn/rms_norm.h"

namespace comba::nn {

struct HGRN2Options {
  int64_t hidden_size = 0;  ///< D
  int64_t num_heads = 0;    ///< H;  K = V = D / H
  int64_t layer = 0;        ///< from 0
  double norm_eps = 1e-5;   ///< of g_norm
};

/// HGRN2 (arXiv 2404.07904): a forget gate a for each key channel, and 1 - a as the key.
///     a = l + (1 - l) sigmoid(x W_f),   S_t = S_{t-1} diag(a) + (x W_i) (1 - a)^T,   o = S silu(x W_q) / sqrt(K)
/// The lower bound l of layer n is the sum of softmax(lower_bounds) over the layers 1 .. n, and 0 in the first; the
/// parameter lower_bounds [L, D] is the model's, and every layer is told of it.
/// Parameters: {q,f,i,o}_proj.weight, g_norm.weight [D].
/// State: S^T [B, H, K, V] f32.
class HGRN2Mixer : public Mixer {
 public:
  HGRN2Mixer(const HGRN2Options& options, const at::TensorOptions& tensor_options);

  /// lower_bounds [L, D]; without it all bounds are 0.
  void set_lower_bounds(const at::Tensor& lower_bounds) { lower_bounds_ = lower_bounds; }

  at::Tensor forward(const at::Tensor& x, const TokenSpan& span, LayerState* state) override;
  LayerState initial_state(int64_t batch) const override;
  MixerFacts facts(int64_t num_tokens) const override;

 private:
  /// log a.  [B, T, D]
  at::Tensor log_forget(const at::Tensor& x);

  HGRN2Options options_;
  at::Tensor lower_bounds_;
  std::shared_ptr<Linear> q_proj_, f_proj_, i_proj_, o_proj_;
  std::shared_ptr<RMSNorm> g_norm_;
};

}  // namespace comba::nn
