// The mixers whose writes do not depend on the state: linear attention and its decays.

#include <algorithm>
#include <cmath>

#include "models/model_family.h"
#include "nn/mixers/gated_slot_attention.h"
#include "nn/mixers/gla.h"
#include "nn/mixers/hgrn2.h"
#include "nn/mixers/linear_attention.h"
#include "nn/mixers/mamba2.h"
#include "nn/mixers/retnet.h"

namespace comba::models {
namespace {

using MixerPtr = std::shared_ptr<nn::Mixer>;

// Of the norm behind HGRN2 and Gated Slot Attention: flash-linear-attention has it at this, whatever norm_eps says.
constexpr double kOutputNormEps = 1e-5;

// ---- linear_attn, retnet, gla: heads of K = D expand_k / H and V = D expand_v / H
// -------------------------------------

void visit_head_sizes(ModelConfig& config, const KeyVisitor& key) {
  key("num_heads", config.num_heads);
  key("expand_k", config.family.expand_k);
  key("expand_v", config.expand_v);
}

int64_t whole_head_dim(const char* key, double expand, const ModelConfig& config) {
  const double size = static_cast<double>(config.hidden_size) * expand;
  require(std::isfinite(size) && size == std::floor(size), ErrorCode::invalid_argument, "[model_config] hidden_size * ",
          key, " must be a whole number; got ", config.hidden_size, " * ", expand);
  const auto whole = static_cast<int64_t>(size);
  require_range(key, whole, 1, kLargestSize);
  require_divides(key, whole, "num_heads", config.num_heads);
  return whole / config.num_heads;
}

nn::LinearAttentionOptions head_options(const ModelConfig& config) {
  return {
      .hidden_size = config.hidden_size,
      .num_heads = config.num_heads,
      .head_k_dim = whole_head_dim("expand_k", config.family.expand_k, config),
      .head_v_dim = whole_head_dim("expand_v", config.expand_v, config),
      .norm_eps = config.norm_eps,
  };
}

void validate_heads(const ModelConfig& config) { head_options(config); }

void validate_turned_heads(const ModelConfig& config) {
  require_divides("the head's key dim", head_options(config).head_k_dim, "a rotation's dims", 2);
}

void require_plain_projections(KeyReader& keys, const ModelConfig& config) {
  keys.require_value("num_kv_heads", {config.num_heads});
  keys.require_value("use_short_conv", {false});
  keys.require_value("elementwise_affine", {true});
  keys.at("conv_size");
}

nn::FeatureMap feature_map(const ModelConfig& config) {
  const std::string& name = config.family.feature_map;
  if (name == "identity") return nn::FeatureMap::identity;
  if (name == "relu") return nn::FeatureMap::relu;
  require(name == "elu", ErrorCode::unsupported, "[model_config] feature_map must be elu, relu or identity; got ",
          name);
  return nn::FeatureMap::elu;
}

ModelFamily linear_attn() {
  return {
      .model_type = "linear_attn",
      .architecture = "LinearAttentionForCausalLM",
      .set_defaults =
          [](ModelConfig& config) {
            config.num_heads = 4;
            config.family.feature_map = "elementwise_product";  // what a foreign file means by silence
          },
      .visit =
          [](ModelConfig& config, const KeyVisitor& key) {
            visit_head_sizes(config, key);
            key("feature_map", config.family.feature_map);
          },
      .require_known =
          [](KeyReader& keys, const ModelConfig& config) {
            require_plain_projections(keys, config);
            for (const char* key : {"tie_feature_map_qk", "norm_q", "norm_k", "norm_feature_map"}) {
              keys.require_value(key, {false});
            }
          },
      .validate =
          [](const ModelConfig& config) {
            validate_heads(config);
            feature_map(config);
          },
      .make_mixer = [](const ModelConfig& config, int64_t, const at::TensorOptions& options) -> MixerPtr {
        nn::LinearAttentionOptions heads = head_options(config);
        heads.feature_map = feature_map(config);
        return std::make_shared<nn::LinearAttentionMixer>(heads, options);
      },
  };
}

ModelFamily retnet() {
  return {
      .model_type = "retnet",
      .architecture = "RetNetForCausalLM",
      .hidden_ratio = 2,
      .set_defaults =
          [](ModelConfig& config) {
            config.num_heads = 8;
            config.expand_v = 2;
          },
      .visit = visit_head_sizes,
      .require_known =
          [](KeyReader& keys, const ModelConfig& config) {
            require_plain_projections(keys, config);
            keys.require_value("feature_map", {nullptr});
            keys.require_value("use_output_gate", {true});
          },
      .validate = validate_turned_heads,
      .make_mixer = [](const ModelConfig& config, int64_t, const at::TensorOptions& options) -> MixerPtr {
        return std::make_shared<nn::RetNetMixer>(head_options(config), options);
      },
  };
}

ModelFamily gla() {
  return {
      .model_type = "gla",
      .architecture = "GLAForCausalLM",
      .set_defaults =
          [](ModelConfig& config) {
            config.num_heads = 4;
            config.family.expand_k = 0.5;
          },
      .visit = visit_head_sizes,
      .require_known =
          [](KeyReader& keys, const ModelConfig& config) {
            require_plain_projections(keys, config);
            for (const char* key : {"use_output_gate", "use_gk"}) keys.require_value(key, {true});
            keys.require_value("use_gv", {false});
            for (const char* key : {"clamp_min", "feature_map"}) keys.require_value(key, {nullptr});
          },
      .validate = validate_heads,
      .make_mixer = [](const ModelConfig& config, int64_t, const at::TensorOptions& options) -> MixerPtr {
        return std::make_shared<nn::GLAMixer>(head_options(config), options);
      },
  };
}

ModelFamily hgrn2() {
  return {
      .model_type = "hgrn2",
      .architecture = "HGRN2ForCausalLM",
      .set_defaults = [](ModelConfig&) {},
      .visit =
          [](ModelConfig& config, const KeyVisitor& key) {
            key("num_heads", config.num_heads);
            int64_t expand_ratio = config.num_heads > 0 ? config.hidden_size / config.num_heads : 128;
            key("expand_ratio", expand_ratio);
            if (expand_ratio > 0) config.num_heads = config.hidden_size / expand_ratio;
            key("use_lower_bound", config.family.use_lower_bound);
          },
      .require_known =
          [](KeyReader& keys, const ModelConfig&) {
            keys.require_value("use_short_conv", {false});
            keys.require_value("elementwise_affine", {true});
            keys.at("conv_size");
          },
      .validate =
          [](const ModelConfig& config) {
            require_divides("hidden_size", config.hidden_size, "num_heads", config.num_heads);
          },
      .make_mixer = [](const ModelConfig& config, int64_t layer, const at::TensorOptions& options) -> MixerPtr {
        return std::make_shared<nn::HGRN2Mixer>(nn::HGRN2Options{.hidden_size = config.hidden_size,
                                                                 .num_heads = config.num_heads,
                                                                 .layer = layer,
                                                                 .norm_eps = kOutputNormEps},
                                                options);
      },
  };
}

ModelFamily mamba2() {
  return {
      .model_type = "mamba2",
      .architecture = "Mamba2ForCausalLM",
      .intermediate_size = [](int64_t, double) { return int64_t{0}; },
      .set_defaults =
          [](ModelConfig& config) {
            config.norm_eps = 1e-5;
            config.head_dim = 64;
          },
      .visit =
          [](ModelConfig& config, const KeyVisitor& key) {
            key("head_dim", config.head_dim);
            if (config.num_heads == 0 && config.head_dim > 0)
              config.num_heads = 2 * config.hidden_size / config.head_dim;
            key("num_heads", config.num_heads);
            key("state_size", config.family.state_size);
            key("n_groups", config.family.n_groups);
            key("conv_kernel", config.conv_size);
            key("use_conv_bias", config.family.use_conv_bias);
            key("use_bias", config.family.use_bias);
          },
      .require_known =
          [](KeyReader& keys, const ModelConfig& config) {
            const double expand = static_cast<double>(config.num_heads * config.head_dim) /
                                  static_cast<double>(std::max<int64_t>(config.hidden_size, 1));
            keys.require_value("expand", {expand});
            for (const char* key : {"rmsnorm", "rms_norm"}) keys.require_value(key, {true});
            for (const char* key : {"norm_before_gate", "D_has_hdim"}) keys.require_value(key, {false});
            const Json unlimited = Json::parse(R"([0.0, {"__float__": "Infinity"}])");
            for (const char* key : {"time_step_limit", "dt_limit"}) keys.require_value(key, {unlimited});
            // Of the initialisation and of other software's speed.
            for (const char* key : {"A_init_range", "chunk_size", "conv_init", "dt_init_floor", "dt_max", "dt_min",
                                    "rescale_prenorm_residual", "residual_in_fp32", "time_step_floor", "time_step_max",
                                    "time_step_min", "time_step_rank"}) {
              keys.at(key);
            }
          },
      .validate =
          [](const ModelConfig& config) {
            require_range("head_dim", config.head_dim, 1, kLargestSize);
            require_range("state_size", config.family.state_size, 1, kLargestSize);
            require_range("conv_kernel", config.conv_size, 2, 64);
            require_range("num_heads", config.num_heads, 1, kLargestSize);
            require_divides("num_heads", config.num_heads, "n_groups", config.family.n_groups);
            require(
                !config.attn.has_value() && config.intermediate_size == 0, ErrorCode::unsupported,
                "[model_config] mamba2 has no MLP and no attention layers; intermediate_size and attn must be absent");
          },
      .make_mixer = [](const ModelConfig& config, int64_t, const at::TensorOptions& options) -> MixerPtr {
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
      },
  };
}

ModelFamily gsa() {
  return {
      .model_type = "gsa",
      .architecture = "GSAForCausalLM",
      .set_defaults =
          [](ModelConfig& config) {
            config.num_heads = 4;
            config.family.num_slots = 64;
          },
      .visit =
          [](ModelConfig& config, const KeyVisitor& key) {
            key("num_heads", config.num_heads);
            key("num_slots", config.family.num_slots);
            key("gate_logit_normalizer", config.family.gate_logit_normalizer);
          },
      .require_known =
          [](KeyReader& keys, const ModelConfig& config) {
            require_plain_projections(keys, config);
            for (const char* key : {"expand_k", "expand_v"}) keys.require_value(key, {1.0});
            keys.require_value("feature_map", {"swish"});
            keys.require_value("use_output_gate", {false});
            keys.require_value("use_norm", {true});
          },
      .validate =
          [](const ModelConfig& config) {
            require_divides("hidden_size", config.hidden_size, "num_heads", config.num_heads);
            require_range("num_slots", config.family.num_slots, 1, kLargestSize);
            const double root = config.family.gate_logit_normalizer;
            require(std::isfinite(root) && root > 0, ErrorCode::invalid_argument,
                    "[model_config] gate_logit_normalizer must be positive; got ", root);
          },
      .make_mixer = [](const ModelConfig& config, int64_t, const at::TensorOptions& options) -> MixerPtr {
        const nn::GatedSlotAttentionOptions slots{.hidden_size = config.hidden_size,
                                                  .num_heads = config.num_heads,
                                                  .num_slots = config.family.num_slots,
                                                  .norm_eps = kOutputNormEps,
                                                  .gate_root = config.family.gate_logit_normalizer};
        return std::make_shared<nn::GatedSlotAttentionMixer>(slots, options);
      },
  };
}

}  // namespace

std::vector<ModelFamily> open_loop_families() { return {linear_attn(), retnet(), gla(), hgrn2(), mamba2(), gsa()}; }

}  // namespace comba::models
