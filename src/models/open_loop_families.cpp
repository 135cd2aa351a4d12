// The mixers whose writes do not depend on the state: linear attention and its decays.

#include <algorithm>
#include <cmath>

#include "base/message.h"
#include "models/model_family.h"

namespace comba::models {
namespace {

// ---- linear_attn, retnet, gla: heads of K = D expand_k / H and V = D expand_v / H
// -------------------------------------

void visit_head_sizes(ModelConfig& config, const KeyVisitor& key) {
  key("num_heads", config.num_heads);
  key("expand_k", config.family.expand_k);
  key("expand_v", config.expand_v);
}

void validate_heads(const ModelConfig& config) {
  head_k_dim(config);
  head_v_dim(config);
}

void validate_turned_heads(const ModelConfig& config) {
  validate_heads(config);
  require_divides("the head's key dim", head_k_dim(config), "a rotation's dims", 2);
}

void require_plain_projections(KeyReader& keys, const ModelConfig& config) {
  keys.require_value("num_kv_heads", {config.num_heads});
  keys.require_value("use_short_conv", {false});
  keys.require_value("elementwise_affine", {true});
  keys.at("conv_size");
}

void validate_feature_map(const ModelConfig& config) {
  const std::string& name = config.family.feature_map;
  require(name == "elu" || name == "relu" || name == "identity", ErrorCode::unsupported,
          "[model_config] feature_map must be elu, relu or identity; got ", name);
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
            validate_feature_map(config);
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
  };
}

}  // namespace

std::vector<ModelFamily> open_loop_families() { return {linear_attn(), retnet(), gla(), hgrn2(), mamba2(), gsa()}; }

}  // namespace comba::models
