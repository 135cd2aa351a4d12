#include "tasks/mixer_spec.h"

#include <algorithm>
#include <nlohmann/json.hpp>
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

/// A config.json in which every type has the same sizes, as far as it has them: heads of D / H in keys and values, so
/// that a recurrent state has D^2 / H numbers, and no MLP.
Json plain_config(const std::string& name, const ModelSizes& sizes) {
  const std::int64_t head_dim = sizes.hidden_size / sizes.num_heads;
  Json json = {{"model_type", name == "softmax" ? "transformer" : name},
               {"hidden_size", sizes.hidden_size},
               {"num_hidden_layers", sizes.num_layers},
               {"vocab_size", sizes.vocab},
               {"norm_eps", 1e-5},
               {"tie_word_embeddings", true}};
  if (name != "rwkv7") json["intermediate_size"] = 0;  // which knows none without; the mixer does not look at it
  if (name != "rwkv7" && name != "hgrn2") json["num_heads"] = sizes.num_heads;
  if (name == "comba" || name == "gated_deltanet" || name == "mamba2" || name == "rwkv7") json["head_dim"] = head_dim;
  if (name == "comba") json.update({{"comba_convention", "paper"}, {"correction_factor", 0.02}});
  if (name == "gated_deltanet") json["expand_v"] = 1.0;
  if (name == "linear_attn" || name == "retnet" || name == "gla") json.update({{"expand_k", 1.0}, {"expand_v", 1.0}});
  if (name == "linear_attn") json["feature_map"] = "elu";
  if (name == "hgrn2") json["expand_ratio"] = head_dim;
  if (name == "gsa") json["num_slots"] = std::max<std::int64_t>(1, head_dim / 2);  // two states of M x K
  if (name == "mamba2") {  // which has heads for twice the width
    json["num_heads"] = 2 * sizes.num_heads;
    json["state_size"] = std::max<std::int64_t>(1, head_dim / 2);
  }
  return json;
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
    Json json = plain_config(parts.empty() ? "" : parts[0], sizes);
    for (std::size_t i = 1; i < parts.size(); ++i) assign(json, parts[i]);
    return models::parse_model_config(json.dump());
  } catch (const Error& error) {
    throw Error(ErrorCode::invalid_argument, concat("[mixer] ", text, ": ", error.what()));
  }
}

}  // namespace comba::tasks
