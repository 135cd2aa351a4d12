#pragma once

#include <memory>
#include <vector>

#include "nn/linear.h"
#include "nn/mixers/mixer.h"
#include "nn/rms_norm.h"
#include "nn/short_convolution.h"

namespace comba::nn {

struct InnerLearningOptions {
  int64_t hidden_size = 0;  ///< D
  int64_t num_heads = 0;    ///< H;  K = V = D / H
  int64_t conv_size = 4;    ///< W
  bool use_short_conv = true;
  int64_t mini_batch_size = 16;
  double base_learning_rate = 1.0;  ///< of the inner steps: the token's rate is this times sigmoid(.)
  double norm_eps = 1e-6;
};

/// Tokens of one mini-batch, or the part of it that is in this call: n of them, with K = V.
struct InnerTokens {
  at::Tensor q;     ///< [B, H, n, K]  of norm 1
  at::Tensor k;     ///< [B, H, n, K]  of norm 1
  at::Tensor v;     ///< [B, H, n, V]
  at::Tensor rate;  ///< [B, H, n, 1]
  at::Tensor log;   ///< [B, H, n, 1]  cumulative log decays from the first of them; undefined: none
};

/// What TTT and MIRAS share: the state is the weights of an inner model, which learns to give v for k by a step of
/// gradient descent a token, and which is asked q. The gradients of a mini-batch of 16 tokens are all taken at the
/// weights before it, so that they are matrix products; token t reads the weights after its own step.
///     y = norm(o) W_o        with q, k, v behind a short convolution, or SiLU alone
/// Parameters: {q,k,v,o}_proj.weight, {q,k,v}_conv1d.weight, lr_proj.{weight [H, D], bias [H]}, o_norm.weight [D], and
/// those of the inner model. A mixer that decays adds a_proj.weight, A_log and dt_bias [H], as in Comba.
/// State: the convolutions' tails; the inner weights before the mini-batch and now, f32.
class InnerLearningMixer : public Mixer {
 public:
  at::Tensor forward(const at::Tensor& x, const TokenSpan& span, LayerState* state) override;
  LayerState initial_state(int64_t batch) const override;
  bool knows_positions() const override { return true; }

 protected:
  InnerLearningMixer(const InnerLearningOptions& options, const at::TensorOptions& tensor_options, bool decays);

  /// The inner weights before the first token, each [B, H, ..] in `dtype`.
  virtual std::vector<at::Tensor> first_weights(int64_t batch, at::ScalarType dtype) const = 0;

  /// Reads and learns some tokens of a mini-batch: gradients at `start`, steps added to `now`.  -> [B, H, n, V]
  virtual at::Tensor learn(const InnerTokens& tokens, const std::vector<at::Tensor>& start,
                           std::vector<at::Tensor>& now) const = 0;

  InnerLearningOptions options_;

 private:
  /// q, k or v: projection, convolution, SiLU.  -> [B, H, T, K]
  at::Tensor project(size_t which, const at::Tensor& x, const TokenSpan& span, LayerState* state);

  /// All tokens of one sequence from place `offset` in a mini-batch.
  at::Tensor learn_all(const InnerTokens& tokens, int64_t offset, std::vector<at::Tensor>& start,
                       std::vector<at::Tensor>& now) const;

  size_t num_tails() const { return options_.use_short_conv ? 3 : 0; }

  std::vector<std::shared_ptr<Linear>> qkv_;
  std::vector<std::shared_ptr<ShortConvolution>> convolutions_;
  std::shared_ptr<Linear> lr_proj_, a_proj_, o_proj_;
  std::shared_ptr<RMSNorm> o_norm_;
  at::Tensor A_log_, dt_bias_;
};

}  // namespace comba::nn
