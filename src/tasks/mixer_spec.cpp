#include "tasks/mixer_spec.h"

#include <nlohmann/json.hpp>
#include <numeric>
#include <sstream>
#include <vector>

#include "base/message.h"

namespace comba::tasks {
namespace {

using Json = nlohmann::ordered_json;

std::vector<std::string> split(const std::string& text, char separator) {
  std::vector<std::string> parts;
  std::istringstream stream(text);
  for (std::string part; std::getline(stream, part, separator);) parts.push_back(part);
  return parts;
}

models::ModelConfig plain_config(const std::string& name, const ModelSizes& sizes) {
  models::ModelConfig config;
  config.model_type = name == "softmax" ? "transformer" : name;
  config.hidden_size = sizes.hidden_size;
  config.num_hidden_layers = sizes.num_layers;
  config.num_heads = config.num_v_heads = sizes.num_heads;
  config.head_dim = sizes.hidden_size / sizes.num_heads;
  config.expand_v = 1;
  config.vocab_size = sizes.vocab;
  config.norm_eps = 1e-5;
  config.tie_word_embeddings = true;
  config.correction_factor = 0.02;
  if (config.model_type == "transformer") {
    config.attn.emplace();
    config.attn->num_heads = config.attn->num_kv_heads = sizes.num_heads;
    config.attn->layers.resize(static_cast<std::size_t>(sizes.num_layers));
    std::iota(config.attn->layers.begin(), config.attn->layers.end(), 0);
  }
  return config;
}

/// "key=value" into a config.json; a value that is no JSON is a text.
void assign(Json& json, const std::string& assignment) {
  const std::size_t equals = assignment.find('=');
  require(equals != std::string::npos && equals > 0, ErrorCode::invalid_argument, "must be key=value; got '",
          assignment, "'");
  const std::string value = assignment.substr(equals + 1);
  const Json parsed = Json::parse(value, nullptr, /*allow_exceptions=*/false);
  json[assignment.substr(0, equals)] = parsed.is_discarded() ? Json(value) : parsed;
}

}  // namespace

models::ModelConfig mixer_config(const std::string& text, const ModelSizes& sizes) {
  try {
    require(sizes.num_heads > 0 && sizes.num_layers > 0 && sizes.hidden_size > 0 &&
                sizes.hidden_size % sizes.num_heads == 0,
            ErrorCode::invalid_argument, "the model's width must be a multiple of its heads; got ", sizes.hidden_size,
            " and ", sizes.num_heads);
    const std::vector<std::string> parts = split(text, ':');
    models::ModelConfig config = plain_config(parts.empty() ? "" : parts[0], sizes);
    models::validate(config);
    if (parts.size() < 2) return config;
    Json json = Json::parse(models::to_json(config));
    for (std::size_t i = 1; i < parts.size(); ++i) assign(json, parts[i]);
    return models::parse_model_config(json.dump());
  } catch (const Error& error) {
    throw Error(ErrorCode::invalid_argument, concat("[mixer] ", text, ": ", error.what()));
  }
}

}  // namespace comba::tasks
