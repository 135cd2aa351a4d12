#include "ablation/variant.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/message.h"

namespace comba::ablation {
namespace {

using Json = nlohmann::ordered_json;

/// What all types of models have.
Json common_sizes(const Json& base) {
  Json sizes = Json::object();
  for (const char* key : {"hidden_size", "num_hidden_layers", "intermediate_size", "vocab_size", "norm_eps",
                          "initializer_range", "tie_word_embeddings"}) {
    if (base.contains(key)) sizes[key] = base[key];
  }
  return sizes;
}

bool is_file_name(const std::string& name) {
  return !name.empty() && std::ranges::all_of(name, [](unsigned char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_' || c == '.';
  }) && name[0] != '.';
}

}  // namespace

Variant make_variant(const std::string& name, const std::string& base, const std::string& changes) {
  require(is_file_name(name), ErrorCode::invalid_argument,
          "[ablation] a variant's name must be of small letters, digits, '-', '_' and '.'; got '", name, "'");
  const Json base_json = Json::parse(base), changed = Json::parse(changes);
  const bool is_other_type = changed.contains("model_type") && base_json.contains("model_type") &&
                             changed["model_type"] != base_json["model_type"];
  Json json = is_other_type ? common_sizes(base_json) : base_json;
  json.update(changed);
  try {
    return {.name = name, .model = models::parse_model_config(json.dump()), .changes = changes};
  } catch (const Error& error) {
    throw Error(ErrorCode::invalid_argument, concat("[ablation] variant ", name, ": ", error.what()));
  }
}

}  // namespace comba::ablation
