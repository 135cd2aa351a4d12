#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>
#include <set>

#include "base/file.h"
#include "base/file_content.h"
#include "base/message.h"
#include "models/key_reader.h"
#include "models/model_config.h"
#include "models/model_family.h"

namespace comba::models {
namespace {

// Keys of foreign files that say how somebody else computes the same thing, or concern other software altogether.
const std::set<std::string>& keys_without_effect() {
  static const std::set<std::string> keys = {
      "architectures",
      "attn_mode",
      "auto_map",
      "bos_token_id",
      "dtype",
      "eos_token_id",
      "fuse_cross_entropy",
      "fuse_linear_cross_entropy",
      "fuse_norm",
      "fuse_swiglu",
      "max_position_embeddings",
      "pad_token_id",
      "torch_dtype",
      "transformers_version",
      "use_cache",
      "use_l2warp",
  };
  return keys;
}

void read_attention_window(KeyReader& keys, AttentionConfig& attn) {
  attn.num_kv_heads = attn.num_heads;
  keys.read("num_kv_heads", attn.num_kv_heads);
  keys.read("qkv_bias", attn.qkv_bias);
  keys.require_value("qk_norm", {false});
  keys.read("rope_theta", attn.rope_theta);
  int64_t window_size = 0;
  if (keys.read("window_size", window_size)) attn.window_size = window_size;
}

std::optional<AttentionConfig> read_hybrid_attention(const Json& json) {
  if (json.is_null()) return std::nullopt;
  KeyReader keys(json, "attn.");
  AttentionConfig attn;
  const Json& layers = keys.at("layers");
  require(layers.is_array(), ErrorCode::invalid_argument, "[model_config] attn.layers must be a list of layers; got ",
          layers.dump());
  for (const Json& layer : layers) {
    require(layer.is_number_integer(), ErrorCode::invalid_argument,
            "[model_config] attn.layers must hold whole numbers; got ", layer.dump());
    attn.layers.push_back(layer.get<int64_t>());
  }
  keys.read_required("num_heads", attn.num_heads);
  keys.read("type", attn.type);
  if (attn.type == kGatedSlotAttention) {
    attn.num_kv_heads = attn.num_heads;
    attn.num_slots = 64;
    keys.read("num_slots", attn.num_slots);
  } else {
    read_attention_window(keys, attn);
  }
  keys.finish({});
  return attn;
}

void read_transformer(KeyReader& keys, ModelConfig& config) {
  AttentionConfig attn;
  keys.read_required("num_heads", attn.num_heads);
  read_attention_window(keys, attn);
  keys.require_value("elementwise_affine", {true});
  config.num_heads = config.num_v_heads = attn.num_heads;
  attn.layers.resize(std::clamp<int64_t>(config.num_hidden_layers, 0, 65536));
  std::iota(attn.layers.begin(), attn.layers.end(), 0);
  config.attn = attn;
}

void read_delta_rule(KeyReader& keys, ModelConfig& config) {
  const bool is_comba = config.model_type == "comba";
  keys.read_required("num_heads", config.num_heads);
  config.num_v_heads = config.num_heads;
  keys.read("num_v_heads", config.num_v_heads);
  keys.read_required("head_dim", config.head_dim);
  config.expand_v = is_comba ? 1.0 : 2.0;
  keys.read("expand_v", config.expand_v);
  keys.read("conv_size", config.conv_size);
  keys.read("use_short_conv", config.use_short_conv);
  keys.read("A_init_max", config.A_init_max);
  if (is_comba) {
    config.convention = "fla";
    keys.read("comba_convention", config.convention);
    keys.read("comba_rule", config.rule);
    keys.read("use_output_correction", config.use_output_correction);
    keys.read("use_inner_decay", config.use_inner_decay);
    keys.read("use_output_gate", config.use_output_gate);
    keys.read("correction_factor", config.correction_factor);
    keys.read("learn_correction_factor", config.learn_correction_factor);
  } else {
    keys.read("use_gate", config.use_output_gate);
    keys.read("allow_neg_eigval", config.allow_neg_eigval);
    keys.require_value("output_gate_activation", {"swish", "silu"});
  }
}

void read_family(const ModelFamily& family, KeyReader& keys, ModelConfig& config) {
  family.visit(config, KeyVisitor(keys));
  config.num_v_heads = config.num_heads;
  family.require_known(keys, config);
}

Json parse_object(const std::string& text) {
  try {
    return Json::parse(text);
  } catch (const Json::exception& error) {
    throw Error(ErrorCode::invalid_argument, concat("[model_config] the text must be JSON; ", error.what()));
  }
}

}  // namespace

ModelConfig parse_model_config(const std::string& json_text) {
  const Json object = parse_object(json_text);
  KeyReader keys(object, "");
  ModelConfig config;
  keys.read_required("model_type", config.model_type);
  const auto& types = supported_model_types();
  // Before anything else is read: the keys of an unknown type have a meaning nobody here knows.
  if (std::find(types.begin(), types.end(), config.model_type) == types.end()) validate(config);

  const ModelFamily* family = find_family(config.model_type);
  if (family != nullptr) family->set_defaults(config);
  keys.read_required("hidden_size", config.hidden_size);
  keys.read_required("num_hidden_layers", config.num_hidden_layers);
  keys.read_required("vocab_size", config.vocab_size);
  keys.read("norm_eps", config.norm_eps);
  keys.read("initializer_range", config.initializer_range);
  keys.read("tie_word_embeddings", config.tie_word_embeddings);
  double hidden_ratio = family != nullptr ? family->hidden_ratio : 4;
  keys.read("hidden_ratio", hidden_ratio);
  if (!keys.read("intermediate_size", config.intermediate_size)) {
    const auto usual_size = family != nullptr ? family->intermediate_size : swiglu_size;
    config.intermediate_size = usual_size(config.hidden_size, hidden_ratio);
  }
  keys.require_value("hidden_act", family != nullptr ? family->hidden_act : std::vector<Json>{"swish", "silu"});
  keys.require_value("attnres_block_size", {nullptr});
  if (config.model_type == "transformer") {
    read_transformer(keys, config);
  } else {
    family != nullptr ? read_family(*family, keys, config) : read_delta_rule(keys, config);
    config.attn = read_hybrid_attention(keys.at("attn"));
  }
  keys.finish(keys_without_effect());
  validate(config);
  return config;
}

ModelConfig load_model_config(const std::filesystem::path& path) {
  return as_content_of(path, [&] { return parse_model_config(read_file(path)); });
}

namespace {

void write_attention(const AttentionConfig& attn, Json& json) {
  json["num_heads"] = attn.num_heads;
  json["num_kv_heads"] = attn.num_kv_heads;
  json["qkv_bias"] = attn.qkv_bias;
  json["window_size"] = attn.window_size ? Json(*attn.window_size) : Json();
  json["rope_theta"] = attn.rope_theta;
}

Json hybrid_json(const AttentionConfig& attn) {
  Json json;
  if (attn.type == kGatedSlotAttention) {
    json["type"] = attn.type;
    json["num_heads"] = attn.num_heads;
    json["num_slots"] = attn.num_slots;
  } else {
    write_attention(attn, json);
  }
  json["layers"] = attn.layers;
  return json;
}

void write_delta_rule(const ModelConfig& config, Json& json) {
  const bool is_comba = config.model_type == "comba";
  json["num_heads"] = config.num_heads;
  json["num_v_heads"] = config.num_v_heads;
  json["head_dim"] = config.head_dim;
  json["expand_v"] = config.expand_v;
  json["conv_size"] = config.conv_size;
  json["use_short_conv"] = config.use_short_conv;
  json[is_comba ? "use_output_gate" : "use_gate"] = config.use_output_gate;
  if (is_comba) {
    json["use_output_correction"] = config.use_output_correction;
    json["use_inner_decay"] = config.use_inner_decay;
    json["correction_factor"] = config.correction_factor;
  } else {
    json["allow_neg_eigval"] = config.allow_neg_eigval;
  }
  // Our own keys for experiments stand in the files of these alone.
  const ModelConfig usual;
  if (!config.learn_correction_factor) json["learn_correction_factor"] = false;
  if (config.A_init_max != usual.A_init_max) json["A_init_max"] = config.A_init_max;
}

}  // namespace

std::string to_json(const ModelConfig& config) {
  const ModelFamily* family = find_family(config.model_type);
  const bool is_comba = config.model_type == "comba";
  const bool is_transformer = config.model_type == "transformer";
  Json json;
  json["model_type"] = config.model_type;
  json["architectures"] = {family != nullptr ? family->architecture
                           : is_comba        ? "CombaForCausalLM"
                           : is_transformer  ? "TransformerForCausalLM"
                                             : "GatedDeltaNetForCausalLM"};
  if (is_comba) {
    json["comba_convention"] = config.convention;
    json["comba_rule"] = config.rule;
  }
  json["hidden_size"] = config.hidden_size;
  json["num_hidden_layers"] = config.num_hidden_layers;
  json["intermediate_size"] = config.intermediate_size;
  json["vocab_size"] = config.vocab_size;
  json["norm_eps"] = config.norm_eps;
  json["initializer_range"] = config.initializer_range;
  json["tie_word_embeddings"] = config.tie_word_embeddings;
  if (is_transformer) {
    write_attention(*config.attn, json);
    return json.dump(2) + "\n";
  }
  if (config.attn) json["attn"] = hybrid_json(*config.attn);
  if (family == nullptr) {
    write_delta_rule(config, json);
  } else {
    ModelConfig values = config;
    family->visit(values, KeyVisitor(json));
  }
  return json.dump(2) + "\n";
}

}  // namespace comba::models
