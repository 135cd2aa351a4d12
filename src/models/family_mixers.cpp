#include "models/family_mixers.h"

#include <map>
#include <string>

#include "base/message.h"
#include "models/model_family.h"
#include "nn/mixers/gated_slot_attention.h"
#include "nn/mixers/gla.h"
#include "nn/mixers/hgrn2.h"
#include "nn/mixers/linear_attention.h"
#include "nn/mixers/mamba2.h"
#include "nn/mixers/miras.h"
#include "nn/mixers/retnet.h"
#include "nn/mixers/ttt.h"

namespace comba::models {
namespace {

using MixerPtr = std::shared_ptr<nn::Mixer>;

// Of the norm behind HGRN2 and Gated Slot Attention: flash-linear-attention has it at this, whatever norm_eps says.
constexpr double kOutputNormEps = 1e-5;

nn::LinearAttentionOptions head_options(const ModelConfig& config) {
  return {
      .hidden_size = config.hidden_size,
      .num_heads = config.num_heads,
      .head_k_dim = head_k_dim(config),
      .head_v_dim = head_v_dim(config),
      .norm_eps = config.norm_eps,
  };
}

nn::FeatureMap feature_map(const ModelConfig& config) {
  if (config.family.feature_map == "identity") return nn::FeatureMap::identity;
  return config.family.feature_map == "relu" ? nn::FeatureMap::relu : nn::FeatureMap::elu;
}

nn::InnerLearningOptions learning_options(const ModelConfig& config) {
  return {
      .hidden_size = config.hidden_size,
      .num_heads = config.num_heads,
      .conv_size = config.conv_size,
      .use_short_conv = config.use_short_conv,
      .mini_batch_size = config.family.mini_batch_size,
      .base_learning_rate = config.family.base_learning_rate,
      .norm_eps = config.norm_eps,
  };
}

MixerPtr linear_attn(const ModelConfig& config, int64_t, const at::TensorOptions& options) {
  nn::LinearAttentionOptions heads = head_options(config);
  heads.feature_map = feature_map(config);
  return std::make_shared<nn::LinearAttentionMixer>(heads, options);
}

MixerPtr retnet(const ModelConfig& config, int64_t, const at::TensorOptions& options) {
  return std::make_shared<nn::RetNetMixer>(head_options(config), options);
}

MixerPtr gla(const ModelConfig& config, int64_t, const at::TensorOptions& options) {
  return std::make_shared<nn::GLAMixer>(head_options(config), options);
}

MixerPtr hgrn2(const ModelConfig& config, int64_t layer, const at::TensorOptions& options) {
  return std::make_shared<nn::HGRN2Mixer>(
      nn::HGRN2Options{
          .hidden_size = config.hidden_size, .num_heads = config.num_heads, .layer = layer, .norm_eps = kOutputNormEps},
      options);
}

MixerPtr mamba2(const ModelConfig& config, int64_t, const at::TensorOptions& options) {
  return std::make_shared<nn::Mamba2Mixer>(nn::Mamba2Options{.hidden_size = config.hidden_size,
                                                             .num_heads = config.num_heads,
                                                             .head_dim = config.head_dim,
                                                             .state_size = config.family.state_size,
                                                             .num_groups = config.family.n_groups,
                                                             .conv_size = config.conv_size,
                                                             .use_conv_bias = config.family.use_conv_bias,
                                                             .use_bias = config.family.use_bias,
                                                             .norm_eps = config.norm_eps},
                                           options);
}

MixerPtr gsa(const ModelConfig& config, int64_t, const at::TensorOptions& options) {
  const nn::GatedSlotAttentionOptions slots{.hidden_size = config.hidden_size,
                                            .num_heads = config.num_heads,
                                            .num_slots = config.family.num_slots,
                                            .norm_eps = kOutputNormEps,
                                            .gate_root = config.family.gate_logit_normalizer};
  return std::make_shared<nn::GatedSlotAttentionMixer>(slots, options);
}

MixerPtr rwkv7(const ModelConfig& config, int64_t layer, const at::TensorOptions& options) {
  return std::make_shared<nn::RWKV7Mixer>(rwkv7_options(config, layer), options);
}

MixerPtr ttt_linear(const ModelConfig& config, int64_t, const at::TensorOptions& options) {
  return std::make_shared<nn::TTTLinearMixer>(learning_options(config), options);
}

MixerPtr ttt_mlp(const ModelConfig& config, int64_t, const at::TensorOptions& options) {
  return std::make_shared<nn::TTTMLPMixer>(learning_options(config), options);
}

MixerPtr miras(const ModelConfig& config, int64_t, const at::TensorOptions& options) {
  return std::make_shared<nn::MirasMixer>(learning_options(config), config.family.power, options);
}

}  // namespace

MixerPtr make_family_mixer(const ModelConfig& config, int64_t layer, const at::TensorOptions& options) {
  using Make = MixerPtr (*)(const ModelConfig&, int64_t, const at::TensorOptions&);
  static const std::map<std::string, Make> makers = {
      {"linear_attn", linear_attn}, {"retnet", retnet},   {"gla", gla},     {"hgrn2", hgrn2},
      {"mamba2", mamba2},           {"gsa", gsa},         {"rwkv7", rwkv7}, {"miras", miras},
      {"ttt_linear", ttt_linear},   {"ttt_mlp", ttt_mlp},
  };
  const auto found = makers.find(config.model_type);
  require(found != makers.end(), ErrorCode::internal, "[model] no mixer has the name ", config.model_type);
  return found->second(config, layer, options);
}

nn::RWKV7Options rwkv7_options(const ModelConfig& config, int64_t layer) {
  return {
      .hidden_size = config.hidden_size,
      .head_dim = config.head_dim,
      .layer = layer,
      .decay_low_rank_dim = config.family.decay_low_rank_dim,
      .gate_low_rank_dim = config.family.gate_low_rank_dim,
      .a_low_rank_dim = config.family.a_low_rank_dim,
      .v_low_rank_dim = config.family.v_low_rank_dim,
      .norm_eps = config.norm_eps,
  };
}

}  // namespace comba::models
