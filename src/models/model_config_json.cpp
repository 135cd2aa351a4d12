#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>
#include <set>

#include "base/file.h"
#include "base/message.h"
#include "base/nearest_name.h"
#include "models/model_config.h"

namespace comba::models {
namespace {

using Json = nlohmann::ordered_json;

/// Takes keys out of a JSON object one by one and knows at the end which ones nobody asked for.
class KeyReader {
 public:
  KeyReader(const Json& object, std::string path) : object_(object), path_(std::move(path)) {
    require(object.is_object(), ErrorCode::invalid_argument, "[model_config] ", path_.empty() ? "the text" : path_,
            " must be a JSON object; got ", object.type_name());
  }

  /// The value of a key, or null when it is absent.
  const Json& at(const std::string& key) {
    static const Json null;
    asked_.insert(key);
    const auto found = object_.find(key);
    return found == object_.end() ? null : *found;
  }

  /// Overwrites `value` unless the key is absent or null. Returns whether it did.
  template <class T>
  bool read(const std::string& key, T& value) {
    const Json& json = at(key);
    if (json.is_null()) return false;
    value = convert<T>(key, json);
    return true;
  }

  template <class T>
  void read_required(const std::string& key, T& value) {
    require(read(key, value), ErrorCode::invalid_argument, "[model_config] key ", path_ + key, " is missing");
  }

  /// A switch of a feature that nothing here implements: it may stand at the value that leaves the feature out.
  void require_value(const std::string& key, const std::vector<Json>& allowed) {
    const Json& json = at(key);
    require(json.is_null() || std::find(allowed.begin(), allowed.end(), json) != allowed.end(), ErrorCode::unsupported,
            "[model_config] ", path_ + key, " must be ", allowed.front().dump(), "; got ", json.dump());
  }

  /// Throws for a key that was not asked for and is not in `without_effect`.
  void finish(const std::set<std::string>& without_effect) const {
    for (const auto& [key, value] : object_.items()) {
      if (asked_.contains(key) || without_effect.contains(key) || key.starts_with('_')) continue;
      const std::vector<std::string> known(asked_.begin(), asked_.end());
      throw Error(ErrorCode::invalid_argument, concat("[model_config] unknown key ", path_, key,
                                                      "; the nearest known is ", path_, nearest_name(key, known)));
    }
  }

 private:
  template <class T>
  T convert(const std::string& key, const Json& json) const {
    bool fits = false;
    const char* wanted = "a text";
    if constexpr (std::is_same_v<T, bool>) {
      fits = json.is_boolean();
      wanted = "true or false";
    } else if constexpr (std::is_same_v<T, int64_t>) {
      fits = json.is_number_integer() && (!json.is_number_unsigned() || json.get<uint64_t>() <= uint64_t{INT64_MAX});
      wanted = "a whole number";
    } else if constexpr (std::is_same_v<T, double>) {
      fits = json.is_number();
      wanted = "a number";
    } else {
      fits = json.is_string();
    }
    require(fits, ErrorCode::invalid_argument, "[model_config] ", path_, key, " must be ", wanted, "; got ",
            json.dump());
    return json.get<T>();
  }

  const Json& object_;
  std::string path_;
  std::set<std::string> asked_;
};

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
  read_attention_window(keys, attn);
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

void read_recurrent(KeyReader& keys, ModelConfig& config) {
  const bool is_comba = config.model_type == "comba";
  keys.read_required("num_heads", config.num_heads);
  config.num_v_heads = config.num_heads;
  keys.read("num_v_heads", config.num_v_heads);
  keys.read_required("head_dim", config.head_dim);
  config.expand_v = is_comba ? 1.0 : 2.0;
  keys.read("expand_v", config.expand_v);
  keys.read("conv_size", config.conv_size);
  keys.read("use_short_conv", config.use_short_conv);
  config.attn = read_hybrid_attention(keys.at("attn"));
  if (is_comba) {
    config.convention = "fla";
    keys.read("comba_convention", config.convention);
    keys.read("comba_rule", config.rule);
    keys.read("use_output_correction", config.use_output_correction);
    keys.read("use_inner_decay", config.use_inner_decay);
    keys.read("use_output_gate", config.use_output_gate);
    keys.read("correction_factor", config.correction_factor);
  } else {
    keys.read("use_gate", config.use_output_gate);
    keys.read("allow_neg_eigval", config.allow_neg_eigval);
    keys.require_value("output_gate_activation", {"swish", "silu"});
  }
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

  keys.read_required("hidden_size", config.hidden_size);
  keys.read_required("num_hidden_layers", config.num_hidden_layers);
  keys.read_required("vocab_size", config.vocab_size);
  keys.read("norm_eps", config.norm_eps);
  keys.read("initializer_range", config.initializer_range);
  keys.read("tie_word_embeddings", config.tie_word_embeddings);
  double hidden_ratio = 4;
  keys.read("hidden_ratio", hidden_ratio);
  if (!keys.read("intermediate_size", config.intermediate_size)) {
    const auto two_thirds = static_cast<int64_t>(static_cast<double>(config.hidden_size) * hidden_ratio * 2 / 3);
    config.intermediate_size = 256 * ((two_thirds + 255) / 256);
  }
  keys.require_value("hidden_act", {"swish", "silu"});
  keys.require_value("attnres_block_size", {nullptr});
  config.model_type == "transformer" ? read_transformer(keys, config) : read_recurrent(keys, config);
  keys.finish(keys_without_effect());
  validate(config);
  return config;
}

ModelConfig load_model_config(const std::filesystem::path& path) {
  try {
    return parse_model_config(read_file(path));
  } catch (const Error& error) {
    if (error.code() == ErrorCode::io) throw;
    throw Error(error.code(), concat(error.what(), " (", path.string(), ")"));
  }
}

std::string to_json(const ModelConfig& config) {
  const bool is_comba = config.model_type == "comba";
  const bool is_transformer = config.model_type == "transformer";
  Json json;
  json["model_type"] = config.model_type;
  json["architectures"] = {is_comba         ? "CombaForCausalLM"
                           : is_transformer ? "TransformerForCausalLM"
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
  if (config.attn) {
    Json attention = is_transformer ? json : Json::object();
    attention["num_heads"] = config.attn->num_heads;
    attention["num_kv_heads"] = config.attn->num_kv_heads;
    attention["qkv_bias"] = config.attn->qkv_bias;
    attention["window_size"] = config.attn->window_size ? Json(*config.attn->window_size) : Json();
    attention["rope_theta"] = config.attn->rope_theta;
    if (is_transformer) return attention.dump(2) + "\n";
    attention["layers"] = config.attn->layers;
    json["attn"] = attention;
  }
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
  return json.dump(2) + "\n";
}

}  // namespace comba::models
