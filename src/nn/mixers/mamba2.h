#pragma once

#include <memory>

#include "nn/linear.h"
#include "nn/mixers/mixer.h"
#include "nn/rms_norm.h"

namespace comba::nn {

struct Mamba2Options {
  int64_t hidden_size = 0;  ///< D
  int64_t num_heads = 0;    ///< H
  int64_t head_dim = 0;     ///< V
  int64_t state_size = 0;   ///< K
  int64_t num_groups = 1;   ///< of heads that share k and q (B and C); divides H
  int64_t conv_size = 4;    ///< W
  bool use_conv_bias = true;
  bool use_bias = false;  ///< of in_proj and out_proj
  double norm_eps = 1e-5;
};

/// The causal convolution of Mamba2, with SiLU.  Parameters: weight [C, 1, W], bias [C] when asked for.
class BiasedConvolution : public torch::nn::Module {
 public:
  BiasedConvolution(int64_t channels, int64_t width, bool with_bias, const at::TensorOptions& options);

  /// x [B, T, C] -> [B, T, C]. `tail` [B, W - 1, C], when given, holds the last inputs and is advanced in place.
  at::Tensor forward(const at::Tensor& x, const TokenSpan& span, at::Tensor* tail);

  /// The tail of a stream before its first token.
  at::Tensor initial_tail(int64_t batch) const;

 private:
  at::Tensor weight_, bias_;
};

/// Mamba2 (arXiv 2405.21060). z, x, k, q, dt are parts of x W_in, and x, k, q go through the convolution:
///     dt = softplus(dt + dt_bias),  a = exp(-exp(A_log) dt),  S_t = a S_{t-1} + dt x k^T,  o = S q + D x
///     y = norm(o silu(z)) W_out
/// Parameters, by flash-linear-attention's names: in_proj.weight, conv1d.{weight, bias}, A_log, D, dt_bias [H],
/// norm.weight [H V], out_proj.weight.
/// State: the convolution's tail, then S^T [B, H, K, V] f32.
class Mamba2Mixer : public Mixer {
 public:
  Mamba2Mixer(const Mamba2Options& options, const at::TensorOptions& tensor_options);

  at::Tensor forward(const at::Tensor& x, const TokenSpan& span, LayerState* state) override;
  LayerState initial_state(int64_t batch) const override;
  MixerFacts facts(int64_t num_tokens) const override;

 private:
  Mamba2Options options_;
  std::shared_ptr<Linear> in_proj_, out_proj_;
  std::shared_ptr<BiasedConvolution> conv1d_;
  std::shared_ptr<RMSNorm> norm_;
  at::Tensor A_log_, D_, dt_bias_;
};

}  // namespace comba::nn
