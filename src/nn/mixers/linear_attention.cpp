#include "nn/mixers/linear_attention.h"

#include <cmath>

#include "nn/mixers/chunks.h"

namespace comba::nn {

LinearAttentionMixer::LinearAttentionMixer(const LinearAttentionOptions& options,
                                           const at::TensorOptions& tensor_options, bool is_gated)
    : options_(options) {
  const int64_t key_size = options.num_heads * options.head_k_dim;
  const int64_t value_size = options.num_heads * options.head_v_dim;
  const auto linear = [&](const char* name, int64_t in, int64_t out) {
    return register_module(name, std::make_shared<Linear>(in, out, tensor_options));
  };
  q_proj_ = linear("q_proj", options.hidden_size, key_size);
  k_proj_ = linear("k_proj", options.hidden_size, key_size);
  v_proj_ = linear("v_proj", options.hidden_size, value_size);
  if (is_gated) g_proj_ = linear("g_proj", options.hidden_size, value_size);
  norm_ = register_module(
      is_gated ? "g_norm_swish_gate" : "norm",
      std::make_shared<GatedRMSNorm>(options.head_v_dim, options.norm_eps, GateFunction::silu, tensor_options));
  o_proj_ = linear("o_proj", value_size, options.hidden_size);
}

at::Tensor LinearAttentionMixer::direction(const at::Tensor& projected, const TokenSpan&) const {
  switch (options_.feature_map) {
    case FeatureMap::identity:
      return projected;
    case FeatureMap::relu:
      return projected.relu();
    case FeatureMap::elu:
      return at::elu(projected) + 1;
  }
  return projected;
}

at::Tensor LinearAttentionMixer::forward(const at::Tensor& x, const TokenSpan& span, LayerState* state) {
  // From here to the norm in fp32, which sums are computed in anyway.
  const auto heads = [&](const at::Tensor& projected) {
    return projected.to(wide_dtype(x)).unflatten(-1, {options_.num_heads, -1});
  };
  DecayAttentionInputs inputs{
      .q = direction(heads(q_proj_->forward(x)), span),
      .k = direction(heads(k_proj_->forward(x)), span),
      .v = heads(v_proj_->forward(x)),
      .g = {},
      .scale = 1 / std::sqrt(static_cast<double>(options_.head_k_dim)),
  };
  set_decay(inputs, x);
  const at::Tensor* recurrent_state = state == nullptr ? nullptr : &state->tensors[0];
  const at::Tensor o = decay_attention_with_state(inputs, span, recurrent_state);  // [B, T, H, V]
  const at::Tensor gate = g_proj_ ? heads(g_proj_->forward(x)) : at::Tensor();
  return o_proj_->forward(norm_->forward(o, gate).flatten(2).to(x.scalar_type()));
}

LayerState LinearAttentionMixer::initial_state(int64_t batch) const {
  const auto options = parameters()[0].options().dtype(at::kFloat).requires_grad(false);
  return {.tensors = {at::zeros({batch, options_.num_heads, options_.head_k_dim, options_.head_v_dim}, options)}};
}

MixerFacts LinearAttentionMixer::facts(int64_t) const {
  return {
      .rule = "S + v k^T, o = S q",
      .closed_loop = false,
      .state_bytes = state_bytes(initial_state(1)),
      .rule_flops = 4.0 * static_cast<double>(options_.num_heads * options_.head_k_dim * options_.head_v_dim),
  };
}

}  // namespace comba::nn
