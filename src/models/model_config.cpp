#include "models/model_config.h"

#include <algorithm>
#include <cmath>

#include "base/message.h"
#include "models/model_family.h"

namespace comba::models {
namespace {

constexpr int64_t kLargestHeadDim = 256;  // what the operator takes

void require_choice(const char* key, const std::string& value, const std::string& one, const std::string& other) {
  require(value == one || value == other, ErrorCode::invalid_argument, "[model_config] ", key, " must be ", one, " or ",
          other, "; got ", value);
}

void validate_attention(const ModelConfig& config) {
  const AttentionConfig& attn = *config.attn;
  require_range("attn.num_heads", attn.num_heads, 1, kLargestSize);
  require_range("attn.num_kv_heads", attn.num_kv_heads, 1, kLargestSize);
  require(attn.num_heads % attn.num_kv_heads == 0, ErrorCode::invalid_argument,
          "[model_config] num_heads of attention must be a multiple of its num_kv_heads; got ", attn.num_heads, " and ",
          attn.num_kv_heads);
  require(config.hidden_size % (2 * attn.num_heads) == 0, ErrorCode::invalid_argument,
          "[model_config] hidden_size must be an even multiple of the attention heads; got ", config.hidden_size,
          " and ", attn.num_heads);
  require(std::isfinite(attn.rope_theta) && attn.rope_theta > 0, ErrorCode::invalid_argument,
          "[model_config] rope_theta must be positive; got ", attn.rope_theta);
  if (attn.window_size) require_range("window_size", *attn.window_size, 1, kLargestSize);
  require_choice("attn.type", attn.type, kSoftmaxAttention, kGatedSlotAttention);
  if (attn.type == kGatedSlotAttention) require_range("attn.num_slots", attn.num_slots, 1, kLargestSize);
  for (int64_t layer : attn.layers) {
    require_range("attn.layers", layer, 0, config.num_hidden_layers - 1);
    require(std::count(attn.layers.begin(), attn.layers.end(), layer) == 1, ErrorCode::invalid_argument,
            "[model_config] attn.layers must name a layer once; got ", layer, " twice");
  }
}

void validate_delta_rule(const ModelConfig& config) {
  require_range("num_heads", config.num_heads, 1, kLargestSize);
  require_range("num_v_heads", config.num_v_heads, 1, kLargestSize);
  require(config.num_v_heads % config.num_heads == 0, ErrorCode::invalid_argument,
          "[model_config] num_v_heads must be a multiple of num_heads; got ", config.num_v_heads, " and ",
          config.num_heads);
  require_range("head_dim", config.head_dim, 1, kLargestHeadDim);
  require(std::isfinite(config.expand_v) &&
              config.head_dim * config.expand_v == std::floor(config.head_dim * config.expand_v),
          ErrorCode::invalid_argument, "[model_config] head_dim * expand_v must be a whole number; got ",
          config.head_dim, " * ", config.expand_v);
  require_range("head_dim * expand_v", config.head_v_dim(), 1, kLargestHeadDim);
  require_range("conv_size", config.conv_size, 1, 64);
  require(std::isfinite(config.A_init_max) && config.A_init_max > 0, ErrorCode::invalid_argument,
          "[model_config] A_init_max must be positive; got ", config.A_init_max);
}

}  // namespace

int64_t ModelConfig::head_v_dim() const { return std::llround(static_cast<double>(head_dim) * expand_v); }

const std::vector<std::string>& supported_model_types() {
  static const std::vector<std::string> types = [] {
    std::vector<std::string> all = {"comba", "gated_deltanet", "transformer"};
    for (const ModelFamily& family : model_families()) all.push_back(family.model_type);
    return all;
  }();
  return types;
}

void validate(const ModelConfig& config) {
  const auto& types = supported_model_types();
  if (std::find(types.begin(), types.end(), config.model_type) == types.end()) {
    std::string known;
    for (const std::string& type : types) known += (known.empty() ? "" : ", ") + type;
    throw Error(ErrorCode::unsupported,
                concat("[model_config] model_type must be one of ", known, "; got ", config.model_type));
  }
  require_range("hidden_size", config.hidden_size, 1, kLargestSize);
  require_range("num_hidden_layers", config.num_hidden_layers, 1, 65536);
  require_range("vocab_size", config.vocab_size, 1, kLargestSize);
  require_range("intermediate_size", config.intermediate_size, 0, kLargestSize);
  require(std::isfinite(config.norm_eps) && config.norm_eps > 0, ErrorCode::invalid_argument,
          "[model_config] norm_eps must be positive; got ", config.norm_eps);
  require(std::isfinite(config.initializer_range) && config.initializer_range >= 0, ErrorCode::invalid_argument,
          "[model_config] initializer_range must not be negative; got ", config.initializer_range);
  require(std::isfinite(config.correction_factor), ErrorCode::invalid_argument,
          "[model_config] correction_factor must be finite; got ", config.correction_factor);
  require_choice("comba_convention", config.convention, "paper", "fla");
  require_choice("comba_rule", config.rule, "splr", "iplr");
  if (config.attn) validate_attention(config);
  if (const ModelFamily* family = find_family(config.model_type)) return family->validate(config);
  if (config.model_type != "transformer") return validate_delta_rule(config);
  require(config.attn && static_cast<int64_t>(config.attn->layers.size()) == config.num_hidden_layers,
          ErrorCode::invalid_argument, "[model_config] a transformer has attention in every layer");
}

}  // namespace comba::models
