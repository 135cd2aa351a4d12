#include "nn/mixers/rwkv7.h"

#include <cmath>

#include "nn/mixers/chunks.h"
#include "nn/mixers/dplr_attention.h"
#include "nn/mixers/token_shift.h"

namespace comba::nn {
namespace {

constexpr double kL2NormEps = 1e-6;

at::Tensor l2_normalised(const at::Tensor& x) {
  return x * (x.square().sum(-1, /*keepdim=*/true) + kL2NormEps).rsqrt();
}

/// The two maps under the names of a Sequential whose second member, the activation, has no parameters.
class TwoMaps : public torch::nn::Module {
 public:
  TwoMaps(const std::shared_ptr<Linear>& down, const std::shared_ptr<Linear>& up) {
    register_module("0", down);
    register_module("2", up);
  }
};

}  // namespace

LowRankMap::LowRankMap(int64_t size, int64_t rank, Activation activation, bool with_bias,
                       const at::TensorOptions& options)
    : activation_(activation),
      down_(std::make_shared<Linear>(size, rank, options)),
      up_(std::make_shared<Linear>(rank, size, options, with_bias)) {
  register_module("lora", std::make_shared<TwoMaps>(down_, up_));
}

at::Tensor LowRankMap::forward(const at::Tensor& x) {
  at::Tensor low = down_->forward(x);
  if (activation_ == Activation::tanh) low = low.tanh();
  if (activation_ == Activation::sigmoid) low = low.sigmoid();
  return up_->forward(low);
}

RWKV7Mixer::RWKV7Mixer(const RWKV7Options& options, const at::TensorOptions& tensor_options) : options_(options) {
  using Activation = LowRankMap::Activation;
  const int64_t size = options.hidden_size;
  const auto parameter = [&](const char* name, at::IntArrayRef shape) {
    return register_parameter(name, at::empty(shape, tensor_options));
  };
  const auto linear = [&](const char* name) {
    return register_module(name, std::make_shared<Linear>(size, size, tensor_options));
  };
  const auto low_rank = [&](const char* name, int64_t rank, Activation activation, bool with_bias) {
    return register_module(name, std::make_shared<LowRankMap>(size, rank, activation, with_bias, tensor_options));
  };
  x_r_ = parameter("x_r", {1, 1, size});
  x_w_ = parameter("x_w", {1, 1, size});
  x_k_ = parameter("x_k", {1, 1, size});
  x_v_ = parameter("x_v", {1, 1, size});
  x_a_ = parameter("x_a", {1, 1, size});
  x_g_ = parameter("x_g", {1, 1, size});
  k_k_ = parameter("k_k", {size});
  k_a_ = parameter("k_a", {size});
  r_k_ = parameter("r_k", {size / options.head_dim, options.head_dim});
  r_proj_ = linear("r_proj");
  k_proj_ = linear("k_proj");
  v_proj_ = linear("v_proj");
  o_proj_ = linear("o_proj");
  w_lora_ = low_rank("w_lora", options.decay_low_rank_dim, Activation::tanh, /*with_bias=*/true);
  if (options.layer > 0) v_lora_ = low_rank("v_lora", options.v_low_rank_dim, Activation::none, /*with_bias=*/true);
  a_lora_ = low_rank("a_lora", options.a_low_rank_dim, Activation::none, /*with_bias=*/true);
  g_lora_ = low_rank("g_lora", options.gate_low_rank_dim, Activation::sigmoid, /*with_bias=*/false);
  const double eps = static_cast<double>(options.head_dim) * options.norm_eps;
  g_norm_ = register_module("g_norm", std::make_shared<LayerNorm>(size, size / options.head_dim, eps,
                                                                  /*with_bias=*/true, tensor_options));
}

RWKV7Output RWKV7Mixer::mix(const at::Tensor& x, const at::Tensor& first_v, const TokenSpan& span, LayerState* state) {
  const auto wide = wide_dtype(x);
  const auto heads = [&](const at::Tensor& flat) { return flat.to(wide).unflatten(-1, {-1, options_.head_dim}); };
  const at::Tensor previous = token_shift(x, span, state == nullptr ? nullptr : &state->tensors[0]);
  const auto mixed = [&](const at::Tensor& share) { return at::lerp(x, previous, share.to(x.scalar_type())); };

  const at::Tensor r = heads(r_proj_->forward(mixed(x_r_)));                              // [B, T, H, K]
  const at::Tensor g = -std::exp(-0.5) * heads(w_lora_->forward(mixed(x_w_))).sigmoid();  // log w
  const at::Tensor k = heads(k_proj_->forward(mixed(x_k_)));
  const at::Tensor x_v = mixed(x_v_);
  const at::Tensor own_v = v_proj_->forward(x_v);  // [B, T, D]
  at::Tensor v = own_v;
  if (first_v.defined() && v_lora_) v = at::lerp(own_v, first_v, v_lora_->forward(x_v).sigmoid());
  const at::Tensor a = heads(a_lora_->forward(mixed(x_a_))).sigmoid();
  const at::Tensor gate = g_lora_->forward(mixed(x_g_));  // [B, T, D]

  const at::Tensor removal = l2_normalised(k * heads(k_k_));
  const at::Tensor replacement = k * (1 + (a - 1) * heads(k_a_));
  const DPLRInputs inputs{.q = r, .k = replacement, .v = heads(v), .a = -removal, .b = removal * a, .g = g};
  const at::Tensor* recurrent_state = state == nullptr ? nullptr : &state->tensors[1];
  const at::Tensor o = dplr_attention_with_state(inputs, span, recurrent_state);  // [B, T, H, V]
  const at::Tensor bonus = (r * replacement * r_k_.to(wide)).sum(-1, /*keepdim=*/true) * inputs.v;
  const at::Tensor normed = g_norm_->forward(o.flatten(2)) + bonus.flatten(2);
  return {.y = o_proj_->forward((normed * gate.to(wide)).to(x.scalar_type())), .v = own_v};
}

LayerState RWKV7Mixer::initial_state(int64_t batch) const {
  const auto options = k_k_.options().requires_grad(false);
  const int64_t num_heads = options_.hidden_size / options_.head_dim;
  return {.tensors = {at::zeros({batch, 1, options_.hidden_size}, options),
                      at::zeros({batch, num_heads, options_.head_dim, options_.head_dim}, options.dtype(at::kFloat))}};
}

MixerFacts RWKV7Mixer::facts(int64_t) const {
  return {
      .rule = "S (diag(w) - k^ (k^ . a)^T) + v k~^T, o = S r",
      .closed_loop = true,
      .state_bytes = state_bytes(initial_state(1)),
      // decay, S k^, the correction, the write, S r
      .rule_flops = 9.0 * static_cast<double>(options_.hidden_size * options_.head_dim),
  };
}

}  // namespace comba::nn
