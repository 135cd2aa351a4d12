#pragma once

#include "nn/mixers/inner_learning.h"

namespace comba::nn {

/// MIRAS (arXiv 2504.13173) with a linear memory, the p-norm as its loss and decay as its retention:
///     S_t = a_t S_{t-1} - beta_t grad |S k_t - v_t|_p^p,   o = S q,   grad = p |e|^{p-1} sign(e) k^T
/// beta = base_learning_rate sigmoid(x W_lr), and a as in Comba. p = 2 is a delta rule, p = 3 is Moneta's loss.
/// Parameters: the common ones. The memory is 0 before the first token.
class MirasMixer : public InnerLearningMixer {
 public:
  /// power: p, at least 2, where the gradient has one itself.
  MirasMixer(const InnerLearningOptions& options, double power, const at::TensorOptions& tensor_options)
      : InnerLearningMixer(options, tensor_options, /*decays=*/true), power_(power) {}

  MixerFacts facts(int64_t num_tokens) const override;

 protected:
  std::vector<at::Tensor> first_weights(int64_t batch, at::ScalarType dtype) const override;
  at::Tensor learn(const InnerTokens& tokens, const std::vector<at::Tensor>& start,
                   std::vector<at::Tensor>& now) const override;

 private:
  double power_;
};

}  // namespace comba::nn
