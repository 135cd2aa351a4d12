#pragma once

#include "nn/mixers/inner_learning.h"

namespace comba::nn {

/// Test-time training with a linear inner model (TTT-Linear, arXiv 2407.04620):
///     z = k W + b,   loss 1/2 |LN(z) - (v - k)|^2,   o = q W + b,   output o + LN(o)
/// The rate of a token is base_learning_rate sigmoid(x W_lr) / K.
/// Parameters beside the common ones: W [H, K, K], b [H K], inner_norm_weight and inner_norm_bias [H K].
class TTTLinearMixer : public InnerLearningMixer {
 public:
  TTTLinearMixer(const InnerLearningOptions& options, const at::TensorOptions& tensor_options);

  MixerFacts facts(int64_t num_tokens) const override;

 protected:
  std::vector<at::Tensor> first_weights(int64_t batch, at::ScalarType dtype) const override;
  at::Tensor learn(const InnerTokens& tokens, const std::vector<at::Tensor>& start,
                   std::vector<at::Tensor>& now) const override;

 private:
  at::Tensor W_, b_, inner_norm_weight_, inner_norm_bias_;
};

/// Test-time training with a perceptron of one hidden layer, 4 K wide, as the inner model (TTT-MLP):
///     z = gelu(k W1 + b1) W2 + b2,   and the rest as in TTT-Linear
/// Parameters beside the common ones: W1 [H, K, 4 K], b1 [4 H K], W2 [H, 4 K, K], b2 [H K], inner_norm_weight and
/// inner_norm_bias [H K].
class TTTMLPMixer : public InnerLearningMixer {
 public:
  TTTMLPMixer(const InnerLearningOptions& options, const at::TensorOptions& tensor_options);

  MixerFacts facts(int64_t num_tokens) const override;

 protected:
  std::vector<at::Tensor> first_weights(int64_t batch, at::ScalarType dtype) const override;
  at::Tensor learn(const InnerTokens& tokens, const std::vector<at::Tensor>& start,
                   std::vector<at::Tensor>& now) const override;

 private:
  at::Tensor W1_, b1_, W2_, b2_, inner_norm_weight_, inner_norm_bias_;
};

}  // namespace comba::nn
