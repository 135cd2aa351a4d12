#include "nn/mixers/miras.h"

namespace comba::nn {

std::vector<at::Tensor> MirasMixer::first_weights(int64_t batch, at::ScalarType dtype) const {
  const int64_t K = options_.hidden_size / options_.num_heads;
  return {at::zeros({batch, options_.num_heads, K, K},
                    parameters()[0].options().dtype(dtype).requires_grad(false))};  // S^T
}

at::Tensor MirasMixer::learn(const InnerTokens& tokens, const std::vector<at::Tensor>& start,
                             std::vector<at::Tensor>& now) const {
  const at::Tensor error = at::matmul(tokens.k, start[0]) - tokens.v;  // [B, H, n, V]
  const at::Tensor steps = tokens.rate * power_ * error.abs().pow(power_ - 1) * error.sign();
  const at::Tensor decays = (tokens.log - tokens.log.transpose(-1, -2)).clamp_max(0).exp();  // [B, H, n, n]
  const at::Tensor scores = (at::matmul(tokens.q, tokens.k.transpose(-1, -2)) * decays).tril();
  at::Tensor o = at::matmul(tokens.q * tokens.log.exp(), now[0]) - at::matmul(scores, steps);
  const at::Tensor last = tokens.log.narrow(2, tokens.log.size(2) - 1, 1);  // [B, H, 1, 1]
  now[0] = last.exp() * now[0] - at::matmul((tokens.k * (last - tokens.log).exp()).transpose(-1, -2), steps);
  return o;
}

MixerFacts MirasMixer::facts(int64_t) const {
  const int64_t width = options_.hidden_size / options_.num_heads;
  const auto K = static_cast<double>(width);
  return {
      .rule = "a S - beta grad |S k - v|_p^p, o = S q",
      .closed_loop = true,
      .state_bytes = state_bytes(initial_state(1)),
      // decay, S k, the step, S q
      .rule_flops = 7.0 * static_cast<double>(options_.hidden_size) * K,
  };
}

}  // namespace comba::nn
