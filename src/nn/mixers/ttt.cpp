#include "nn/mixers/ttt.h"

#include <cmath>
#include <numbers>

namespace comba::nn {
namespace {

constexpr double kInnerNormEps = 1e-6;
constexpr int64_t kExpansion = 4;

/// A parameter [H, ..], or a vector [H X], as the weights of B streams [B, H, ..].
at::Tensor for_streams(const at::Tensor& parameter, int64_t num_heads, int64_t batch, at::ScalarType dtype) {
  const at::Tensor of_heads = parameter.dim() == 1 ? parameter.unflatten(0, {num_heads, -1}) : parameter;
  std::vector<int64_t> sizes = of_heads.sizes().vec();
  sizes.insert(sizes.begin(), batch);
  return of_heads.to(dtype).expand(sizes);
}

/// Layer norm in each head.  z [B, H, n, K], weight, bias [H K]
class InnerNorm {
 public:
  InnerNorm(const at::Tensor& weight, const at::Tensor& bias, const at::Tensor& z)
      : weight_(weight.to(z.scalar_type()).view({z.size(1), 1, -1})),
        bias_(bias.to(z.scalar_type()).view({z.size(1), 1, -1})) {}

  at::Tensor operator()(const at::Tensor& z) const {
    return at::layer_norm(z, {z.size(-1)}, {}, {}, kInnerNormEps) * weight_ + bias_;
  }

  /// The gradient of 1/2 |LN(z) - target|^2 with respect to z.
  at::Tensor loss_gradient(const at::Tensor& z, const at::Tensor& target) const {
    const at::Tensor centred = z - z.mean(-1, /*keepdim=*/true);
    const at::Tensor inverse = (centred.square().mean(-1, /*keepdim=*/true) + kInnerNormEps).rsqrt();
    const at::Tensor normed = centred * inverse;
    const at::Tensor d_normed = (normed * weight_ + bias_ - target) * weight_;
    const at::Tensor along = (d_normed * normed).mean(-1, /*keepdim=*/true);
    return (d_normed - d_normed.mean(-1, /*keepdim=*/true) - normed * along) * inverse;
  }

 private:
  at::Tensor weight_, bias_;
};

/// tril(q k^T + 1): how much of each step of a map's weights and bias a later token meets.  [B, H, n, n]
at::Tensor meeting(const at::Tensor& q, const at::Tensor& k) { return (at::matmul(q, k.transpose(-1, -2)) + 1).tril(); }

/// x W + b after the steps of the tokens up to each one.
at::Tensor apply_learned(const at::Tensor& x, const at::Tensor& inputs, const at::Tensor& steps, const at::Tensor& W,
                         const at::Tensor& b) {
  return at::matmul(x, W) + b.unsqueeze(2) - at::matmul(meeting(x, inputs), steps);
}

/// The steps of all tokens.
void descend(const at::Tensor& inputs, const at::Tensor& steps, at::Tensor& W, at::Tensor& b) {
  W = W - at::matmul(inputs.transpose(-1, -2), steps);
  b = b - steps.sum(2);
}

/// The derivative of gelu(x) = x Phi(x).
at::Tensor gelu_derivative(const at::Tensor& x) {
  const at::Tensor cumulative = 0.5 * (1 + at::erf(x * std::numbers::sqrt2 / 2));
  return cumulative + x * (-0.5 * x.square()).exp() * (0.5 * std::numbers::inv_sqrtpi * std::numbers::sqrt2);
}

}  // namespace

TTTLinearMixer::TTTLinearMixer(const InnerLearningOptions& options, const at::TensorOptions& tensor_options)
    : InnerLearningMixer(options, tensor_options, /*decays=*/false) {
  const int64_t H = options.num_heads, K = options.hidden_size / H;
  W_ = register_parameter("W", at::empty({H, K, K}, tensor_options));
  b_ = register_parameter("b", at::empty({H * K}, tensor_options));
  inner_norm_weight_ = register_parameter("inner_norm_weight", at::empty({H * K}, tensor_options));
  inner_norm_bias_ = register_parameter("inner_norm_bias", at::empty({H * K}, tensor_options));
}

std::vector<at::Tensor> TTTLinearMixer::first_weights(int64_t batch, at::ScalarType dtype) const {
  return {for_streams(W_, options_.num_heads, batch, dtype), for_streams(b_, options_.num_heads, batch, dtype)};
}

at::Tensor TTTLinearMixer::learn(const InnerTokens& tokens, const std::vector<at::Tensor>& start,
                                 std::vector<at::Tensor>& now) const {
  const InnerNorm norm(inner_norm_weight_, inner_norm_bias_, tokens.q);
  const at::Tensor rate = tokens.rate / tokens.k.size(-1);
  const at::Tensor z = at::matmul(tokens.k, start[0]) + start[1].unsqueeze(2);
  const at::Tensor steps = rate * norm.loss_gradient(z, tokens.v - tokens.k);
  const at::Tensor o = apply_learned(tokens.q, tokens.k, steps, now[0], now[1]);
  descend(tokens.k, steps, now[0], now[1]);
  return o + norm(o);
}

MixerFacts TTTLinearMixer::facts(int64_t) const {
  const double K = static_cast<double>(options_.hidden_size / options_.num_heads);
  return {
      .rule = "W - eta d/dW 1/2 |LN(k W + b) - (v - k)|^2, o = q W + b",
      .closed_loop = true,
      .state_bytes = state_bytes(initial_state(1)),
      // k W, the step, q W
      .rule_flops = 6.0 * static_cast<double>(options_.hidden_size) * K,
  };
}

TTTMLPMixer::TTTMLPMixer(const InnerLearningOptions& options, const at::TensorOptions& tensor_options)
    : InnerLearningMixer(options, tensor_options, /*decays=*/false) {
  const int64_t H = options.num_heads, K = options.hidden_size / H;
  W1_ = register_parameter("W1", at::empty({H, K, kExpansion * K}, tensor_options));
  b1_ = register_parameter("b1", at::empty({H * kExpansion * K}, tensor_options));
  W2_ = register_parameter("W2", at::empty({H, kExpansion * K, K}, tensor_options));
  b2_ = register_parameter("b2", at::empty({H * K}, tensor_options));
  inner_norm_weight_ = register_parameter("inner_norm_weight", at::empty({H * K}, tensor_options));
  inner_norm_bias_ = register_parameter("inner_norm_bias", at::empty({H * K}, tensor_options));
}

std::vector<at::Tensor> TTTMLPMixer::first_weights(int64_t batch, at::ScalarType dtype) const {
  return {for_streams(W1_, options_.num_heads, batch, dtype), for_streams(b1_, options_.num_heads, batch, dtype),
          for_streams(W2_, options_.num_heads, batch, dtype), for_streams(b2_, options_.num_heads, batch, dtype)};
}

at::Tensor TTTMLPMixer::learn(const InnerTokens& tokens, const std::vector<at::Tensor>& start,
                              std::vector<at::Tensor>& now) const {
  const InnerNorm norm(inner_norm_weight_, inner_norm_bias_, tokens.q);
  const at::Tensor rate = tokens.rate / tokens.k.size(-1);
  const at::Tensor z1 = at::matmul(tokens.k, start[0]) + start[1].unsqueeze(2);  // [B, H, n, 4 K]
  const at::Tensor hidden = at::gelu(z1);
  const at::Tensor z2 = at::matmul(hidden, start[2]) + start[3].unsqueeze(2);  // [B, H, n, K]
  const at::Tensor dz2 = norm.loss_gradient(z2, tokens.v - tokens.k);
  const at::Tensor steps2 = rate * dz2;
  const at::Tensor steps1 = rate * at::matmul(dz2, start[2].transpose(-1, -2)) * gelu_derivative(z1);

  const at::Tensor asked = at::gelu(apply_learned(tokens.q, tokens.k, steps1, now[0], now[1]));
  const at::Tensor o = apply_learned(asked, hidden, steps2, now[2], now[3]);
  descend(tokens.k, steps1, now[0], now[1]);
  descend(hidden, steps2, now[2], now[3]);
  return o + norm(o);
}

MixerFacts TTTMLPMixer::facts(int64_t) const {
  const double K = static_cast<double>(options_.hidden_size / options_.num_heads);
  return {
      .rule = "W1, W2 - eta d/dW 1/2 |LN(gelu(k W1 + b1) W2 + b2) - (v - k)|^2, o = gelu(q W1 + b1) W2 + b2",
      .closed_loop = true,
      .state_bytes = state_bytes(initial_state(1)),
      // z, its gradient back to the hidden layer, two steps, o; each map is K x 4 K
      .rule_flops = (4.0 + 2.0 + 4.0 + 4.0) * static_cast<double>(kExpansion * options_.hidden_size) * K,
  };
}

}  // namespace comba::nn
