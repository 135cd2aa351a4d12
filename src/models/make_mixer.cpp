#include "models/make_mixer.h"

#include <algorithm>

#include "models/family_mixers.h"
#include "models/model_family.h"
#include "nn/mixers/attention.h"
#include "nn/mixers/comba.h"
#include "nn/mixers/gated_deltanet.h"
#include "nn/mixers/gated_slot_attention.h"

namespace comba::models {
namespace {

std::shared_ptr<nn::Mixer> make_attention(const ModelConfig& config, const at::TensorOptions& tensor_options) {
  if (config.attn->type == kGatedSlotAttention) {
    const nn::GatedSlotAttentionOptions options{
        .hidden_size = config.hidden_size, .num_heads = config.attn->num_heads, .num_slots = config.attn->num_slots};
    return std::make_shared<nn::GatedSlotAttentionMixer>(options, tensor_options);
  }
  const nn::AttentionOptions options{
      .hidden_size = config.hidden_size,
      .num_heads = config.attn->num_heads,
      .num_kv_heads = config.attn->num_kv_heads,
      .qkv_bias = config.attn->qkv_bias,
      .window_size = config.attn->window_size,
      .rope_theta = config.attn->rope_theta,
  };
  return std::make_shared<nn::AttentionMixer>(options, tensor_options);
}

std::shared_ptr<nn::Mixer> make_comba(const ModelConfig& config, const at::TensorOptions& tensor_options) {
  nn::CombaOptions options{
      .hidden_size = config.hidden_size,
      .num_heads = config.num_heads,
      .num_v_heads = config.num_v_heads,
      .head_k_dim = config.head_dim,
      .head_v_dim = config.head_v_dim(),
      .conv_size = config.conv_size,
      .norm_eps = config.norm_eps,
      .delta_rule = {},
      .use_short_conv = config.use_short_conv,
      .use_output_gate = config.use_output_gate,
      .use_output_correction = config.use_output_correction,
      .learn_correction_factor = config.learn_correction_factor,
      .use_inner_decay = config.use_inner_decay,
  };
  options.delta_rule.convention = config.convention == "paper" ? Convention::paper : Convention::fla;
  if (config.rule == "iplr") {
    options.delta_rule.rule = Rule::gated_delta;
    options.delta_rule.beta_scale = 2.0f;
  }
  if (config.model_type == "gated_deltanet") options = nn::as_gated_deltanet(options, config.allow_neg_eigval);
  return std::make_shared<nn::CombaMixer>(options, tensor_options);
}

}  // namespace

std::shared_ptr<nn::Mixer> make_mixer(const ModelConfig& config, int64_t layer, const at::TensorOptions& options) {
  const bool is_attention =
      config.attn && std::count(config.attn->layers.begin(), config.attn->layers.end(), layer) > 0;
  if (is_attention) return make_attention(config, options);
  return find_family(config.model_type) != nullptr ? make_family_mixer(config, layer, options)
                                                   : make_comba(config, options);
}

}  // namespace comba::models
