#include "nn/mixers/gated_slot_attention.h"

#include "nn/mixers/chunks.h"
#include "nn/mixers/decay_attention.h"

namespace comba::nn {

GatedSlotAttentionMixer::GatedSlotAttentionMixer(const GatedSlotAttentionOptions& options,
                                                 const at::TensorOptions& tensor_options)
    : options_(options) {
  const auto linear = [&](const char* name, int64_t out) {
    return register_module(name, std::make_shared<Linear>(options.hidden_size, out, tensor_options));
  };
  q_proj_ = linear("q_proj", options.hidden_size);
  k_proj_ = linear("k_proj", options.hidden_size);
  v_proj_ = linear("v_proj", options.hidden_size);
  f_proj_ = linear("f_proj", options.num_heads * options.num_slots);
  g_norm_ = register_module("g_norm", std::make_shared<RMSNorm>(options.hidden_size, options.norm_eps, tensor_options));
  o_proj_ = linear("o_proj", options.hidden_size);
}

at::Tensor GatedSlotAttentionMixer::forward(const at::Tensor& x, const TokenSpan& span, LayerState* state) {
  const auto heads = [&](const at::Tensor& projected) { return projected.unflatten(-1, {options_.num_heads, -1}); };
  const auto wide = wide_dtype(x);
  const at::Tensor log_keep = at::log_sigmoid(heads(f_proj_->forward(x)).to(wide)) / options_.gate_root;
  const at::Tensor write = -at::expm1(log_keep);  // [B, T, H, M]
  const DecayAttentionInputs keys{
      .q = heads(at::silu(q_proj_->forward(x))).to(wide),
      .k = heads(at::silu(k_proj_->forward(x))),
      .v = write,
      .g = log_keep,
      .decay_of = DecayOf::value,
  };
  const at::Tensor* key_slots = state == nullptr ? nullptr : &state->tensors[0];
  const at::Tensor* value_slots = state == nullptr ? nullptr : &state->tensors[1];
  const DecayAttentionInputs values{
      .q = decay_attention_with_state(keys, span, key_slots).softmax(-1),
      .k = write,
      .v = heads(at::silu(v_proj_->forward(x))),
      .g = log_keep,
      .decay_of = DecayOf::key,
  };
  const at::Tensor o = decay_attention_with_state(values, span, value_slots);  // [B, T, H, V]
  return o_proj_->forward(g_norm_->forward(at::silu(o).flatten(2)).to(x.scalar_type()));
}

LayerState GatedSlotAttentionMixer::initial_state(int64_t batch) const {
  const int64_t dim = options_.hidden_size / options_.num_heads;
  const auto options = parameters()[0].options().dtype(at::kFloat).requires_grad(false);
  return {.tensors = {at::zeros({batch, options_.num_heads, dim, options_.num_slots}, options),
                      at::zeros({batch, options_.num_heads, options_.num_slots, dim}, options)}};
}

MixerFacts GatedSlotAttentionMixer::facts(int64_t) const {
  return {
      .rule = "S_k, S_v: diag(a) S + (1 - a) [k; v]^T, o = S_v^T softmax(S_k q)",
      .closed_loop = false,
      .state_bytes = state_bytes(initial_state(1)),
      .rule_flops = 10.0 * static_cast<double>(options_.hidden_size * options_.num_slots),
  };
}

}  // namespace comba::nn
