#include "nn/mixers/comba.h"

#include "nn/mixers/delta_rule_core.h"

namespace comba::nn {

CombaMixer::CombaMixer(const CombaOptions& options, const at::TensorOptions& tensor_options) : options_(options) {
  const int64_t hidden_size = options.hidden_size;
  const int64_t key_size = options.num_heads * options.head_k_dim;
  const int64_t value_size = options.num_v_heads * options.head_v_dim;
  const auto linear = [&](const char* name, int64_t in, int64_t out) {
    return register_module(name, std::make_shared<Linear>(in, out, tensor_options));
  };
  const auto convolution = [&](const char* name, int64_t channels) {
    return register_module(name, std::make_shared<ShortConvolution>(channels, options.conv_size, tensor_options));
  };
  const auto per_head = [&](const char* name, int64_t heads) {
    return register_parameter(name, at::empty({heads}, tensor_options));
  };

  q_proj_ = linear("q_proj", hidden_size, key_size);
  k_proj_ = linear("k_proj", hidden_size, key_size);
  v_proj_ = linear("v_proj", hidden_size, value_size);
  b_proj_ = linear("b_proj", hidden_size, options.num_v_heads);
  a_proj_ = linear("a_proj", hidden_size, options.num_v_heads);
  A_log_ = per_head("A_log", options.num_v_heads);
  dt_bias_ = per_head("dt_bias", options.num_v_heads);
  if (options.use_output_correction) D_ = per_head("D", options.num_heads);
  if (options.use_inner_decay) decay_ = per_head("decay", options.num_heads);
  if (options.use_short_conv) {
    q_conv1d_ = convolution("q_conv1d", key_size);
    k_conv1d_ = convolution("k_conv1d", key_size);
    v_conv1d_ = convolution("v_conv1d", value_size);
  }
  if (options.use_output_gate) g_proj_ = linear("g_proj", hidden_size, value_size);
  o_norm_ = register_module("o_norm", std::make_shared<GatedRMSNorm>(options.head_v_dim, options.norm_eps,
                                                                     options.gate_function, tensor_options));
  o_proj_ = linear("o_proj", value_size, hidden_size);
}

at::Tensor CombaMixer::project(Linear& projection, ShortConvolution* convolution, const at::Tensor& x,
                               const TokenSpan& span, LayerState* state, size_t which) {
  const at::Tensor projected = projection.forward(x);
  if (convolution == nullptr) return at::silu(projected);
  return convolution->forward(projected, span, state == nullptr ? nullptr : &state->tensors[which]);
}

at::Tensor CombaMixer::forward(const at::Tensor& x, const TokenSpan& span, LayerState* state) {
  const std::vector<int64_t> key_shape = {x.size(0), x.size(1), options_.num_heads, options_.head_k_dim};
  const std::vector<int64_t> value_shape = {x.size(0), x.size(1), options_.num_v_heads, options_.head_v_dim};
  const at::Tensor q = project(*q_proj_, q_conv1d_.get(), x, span, state, 0).view(key_shape);    // [B, T, H, K]
  const at::Tensor k = project(*k_proj_, k_conv1d_.get(), x, span, state, 1).view(key_shape);    // [B, T, H, K]
  const at::Tensor v = project(*v_proj_, v_conv1d_.get(), x, span, state, 2).view(value_shape);  // [B, T, HV, V]

  // Rates and strengths stay fp32 in a 16-bit model: they compound over thousands of tokens.
  const auto wide = [](const at::Tensor& parameter) { return parameter.to(at::kFloat); };
  const DeltaRuleTensors inputs{
      .q = q,
      .k = k,
      .v = v,
      .p = {},
      .b = options_.use_inner_decay ? at::sigmoid(wide(decay_)) : at::Tensor(),
      .d = options_.use_output_correction ? wide(D_) : at::Tensor(),
      .beta = {},
      .beta_logit = b_proj_->forward(x),  // [B, T, HV]
      .g = {},
      .a = a_proj_->forward(x),  // [B, T, HV]
      .A_log = wide(A_log_),
      .dt_bias = wide(dt_bias_),
      .initial_state = {},
      .cu_seqlens = {},
  };
  const at::Tensor* recurrent_state = state == nullptr ? nullptr : &state->tensors.back();
  const at::Tensor o = delta_rule_with_state(inputs, options_.delta_rule, span, recurrent_state);  // [B, T, HV, V]

  const at::Tensor gate = options_.use_output_gate ? g_proj_->forward(x).view(value_shape) : at::Tensor();
  return o_proj_->forward(o_norm_->forward(o, gate).flatten(2));
}

LayerState CombaMixer::initial_state(int64_t batch) const {
  LayerState state;
  if (options_.use_short_conv) {
    for (const auto& convolution : {q_conv1d_, k_conv1d_, v_conv1d_}) {
      state.tensors.push_back(convolution->initial_tail(batch));
    }
  }
  state.tensors.push_back(at::zeros({batch, options_.num_v_heads, options_.head_k_dim, options_.head_v_dim},
                                    A_log_.options().dtype(at::kFloat).requires_grad(false)));
  return state;
}

MixerFacts CombaMixer::facts(int64_t) const {
  const bool is_comba = options_.delta_rule.rule == Rule::comba;
  const std::string correction = options_.use_output_correction ? "(q - d k)" : "q";
  const std::string strength = options_.use_inner_decay ? "b beta" : "beta";
  return {
      .rule = is_comba ? "S (a - " + strength + " k k^T) + beta v k^T, o = S " + correction
                       : "S a (I - " + strength + " k k^T) + beta v k^T, o = S " + correction,
      .closed_loop = true,
      .state_bytes = state_bytes(initial_state(1)),
      // decay, S k, the write, S q
      .rule_flops = 7.0 * static_cast<double>(options_.num_v_heads * options_.head_k_dim * options_.head_v_dim),
  };
}

}  // namespace comba::nn
