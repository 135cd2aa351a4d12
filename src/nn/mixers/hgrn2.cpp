#include "nn/mixers/hgrn2.h"

#include <cmath>

#include "nn/mixers/chunks.h"
#include "nn/mixers/decay_attention.h"

namespace comba::nn {

HGRN2Mixer::HGRN2Mixer(const HGRN2Options& options, const at::TensorOptions& tensor_options) : options_(options) {
  const auto linear = [&](const char* name) {
    return register_module(name, std::make_shared<Linear>(options.hidden_size, options.hidden_size, tensor_options));
  };
  q_proj_ = linear("q_proj");
  f_proj_ = linear("f_proj");
  i_proj_ = linear("i_proj");
  g_norm_ = register_module("g_norm", std::make_shared<RMSNorm>(options.hidden_size, options.norm_eps, tensor_options));
  o_proj_ = linear("o_proj");
}

at::Tensor HGRN2Mixer::log_forget(const at::Tensor& x) {
  const auto wide = wide_dtype(x);
  const at::Tensor log_gate = at::log_sigmoid(f_proj_->forward(x).to(wide));
  if (!lower_bounds_.defined() || options_.layer == 0) return log_gate;
  const at::Tensor shares = lower_bounds_.to(wide).softmax(0);          // [L, D]
  const at::Tensor bound = shares.narrow(0, 1, options_.layer).sum(0);  // [D]
  return at::logaddexp(bound.log(), at::log1p(-bound) + log_gate);
}

at::Tensor HGRN2Mixer::forward(const at::Tensor& x, const TokenSpan& span, LayerState* state) {
  // From here to the norm in fp32, which sums are computed in anyway.
  const auto heads = [&](const at::Tensor& projected) {
    return projected.to(wide_dtype(x)).unflatten(-1, {options_.num_heads, -1});
  };
  const at::Tensor g = heads(log_forget(x));
  const DecayAttentionInputs inputs{
      .q = at::silu(heads(q_proj_->forward(x))),
      .k = -at::expm1(g),
      .v = heads(i_proj_->forward(x)),
      .g = g,
      .decay_of = DecayOf::key,
      .scale = std::sqrt(static_cast<double>(options_.num_heads) / static_cast<double>(options_.hidden_size)),
  };
  const at::Tensor* recurrent_state = state == nullptr ? nullptr : &state->tensors[0];
  const at::Tensor o = decay_attention_with_state(inputs, span, recurrent_state);  // [B, T, H, V]
  return o_proj_->forward(g_norm_->forward(o.flatten(2)).to(x.scalar_type()));
}

LayerState HGRN2Mixer::initial_state(int64_t batch) const {
  const int64_t dim = options_.hidden_size / options_.num_heads;
  const auto options = parameters()[0].options().dtype(at::kFloat).requires_grad(false);
  return {.tensors = {at::zeros({batch, options_.num_heads, dim, dim}, options)}};
}

MixerFacts HGRN2Mixer::facts(int64_t) const {
  const double dim = static_cast<double>(options_.hidden_size / options_.num_heads);
  return {
      .rule = "S diag(a) + v (1 - a)^T, o = S q",
      .closed_loop = false,
      .state_bytes = state_bytes(initial_state(1)),
      .rule_flops = 5.0 * static_cast<double>(options_.hidden_size) * dim,
  };
}

}  // namespace comba::nn
