#pragma once

#include <memory>

#include "nn/layer_norm.h"
#include "nn/linear.h"
#include "nn/mixers/mixer.h"

namespace comba::nn {

struct RWKV7Options {
  int64_t hidden_size = 0;  ///< D
  int64_t head_dim = 0;     ///< K = V;  H = D / K
  int64_t layer = 0;        ///< from 0
  int64_t decay_low_rank_dim = 0, gate_low_rank_dim = 0, a_low_rank_dim = 0, v_low_rank_dim = 0;
  double norm_eps = 1e-5;
};

/// What the first layer's values are to the others.
struct RWKV7Output {
  at::Tensor y;  ///< [B, T, D]
  at::Tensor v;  ///< [B, T, D]  the layer's own values, before the first layer's are mixed in
};

/// W_2 f(W_1 x) + bias.  Parameters: lora.0.weight [r, D], lora.2.{weight [D, r], bias [D]}.
class LowRankMap : public torch::nn::Module {
 public:
  enum class Activation { none, tanh, sigmoid };

  LowRankMap(int64_t size, int64_t rank, Activation activation, bool with_bias, const at::TensorOptions& options);

  at::Tensor forward(const at::Tensor& x);

 private:
  Activation activation_;
  std::shared_ptr<Linear> down_, up_;
};

/// RWKV7's time mixing (arXiv 2503.14456): every input is a mixture of a token and the one before it, x + (x' - x) x_*;
///     k^ = l2(k . k_k),  a = sigmoid(.),  k~ = k (1 + (a - 1) k_a),  log w = -e^{-1/2} sigmoid(.)
///     S_t = S_{t-1} (diag(w) - k^ (k^ . a)^T) + v k~^T,   o = S r
///     y = ((norm(o) + (r . k~ . r_k) v) . g) W_o
/// In later layers v moves towards the first layer's v by sigmoid(.), where that is given.
/// Parameters, by flash-linear-attention's names: x_{r,w,k,v,a,g} [1, 1, D], k_k, k_a [D], r_k [H, K],
/// {r,k,v,o}_proj.weight, {w,a,g}_lora and from the second layer on v_lora, g_norm.{weight, bias} [D].
/// State: the last token's input [B, 1, D], then S^T [B, H, K, V] f32.
class RWKV7Mixer : public Mixer {
 public:
  RWKV7Mixer(const RWKV7Options& options, const at::TensorOptions& tensor_options);

  at::Tensor forward(const at::Tensor& x, const TokenSpan& span, LayerState* state) override {
    return mix(x, /*first_v=*/{}, span, state).y;
  }

  /// first_v [B, T, D]: the first layer's values; undefined in the first layer itself.
  RWKV7Output mix(const at::Tensor& x, const at::Tensor& first_v, const TokenSpan& span, LayerState* state);

  LayerState initial_state(int64_t batch) const override;
  MixerFacts facts(int64_t num_tokens) const override;

 private:
  RWKV7Options options_;
  at::Tensor x_r_, x_w_, x_k_, x_v_, x_a_, x_g_, k_k_, k_a_, r_k_;
  std::shared_ptr<Linear> r_proj_, k_proj_, v_proj_, o_proj_;
  std::shared_ptr<LowRankMap> w_lora_, v_lora_, a_lora_, g_lora_;
  std::shared_ptr<LayerNorm> g_norm_;
};

}  // namespace comba::nn
