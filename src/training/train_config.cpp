#include "training/train_config.h"

#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "base/message.h"

namespace comba::training {
namespace {

void require_field(bool holds, const char* name, const char* rule, auto value) {
  require(holds, ErrorCode::invalid_argument, "[train] ", name, " must be ", rule, "; got ", value);
}

void require_at_least(std::int64_t least, const char* name, std::int64_t value) {
  require(value >= least, ErrorCode::invalid_argument, "[train] ", name, " must be at least ", least, "; got ", value);
}

template <class T>
bool holds_a(const nlohmann::json& json) {
  if constexpr (std::is_same_v<T, bool>) return json.is_boolean();
  if constexpr (std::is_same_v<T, std::string>) return json.is_string();
  return json.is_number();
}

template <class T>
constexpr const char* kExpected = std::is_same_v<T, bool>          ? "true or false"
                                  : std::is_same_v<T, std::string> ? "a text"
                                                                   : "a number";

void require_fraction(const char* name, double value) {
  require_field(value >= 0 && value < 1, name, "in [0, 1)", value);
}

}  // namespace

void validate(const TrainConfig& config) {
  require_at_least(1, "steps", config.steps);
  require_at_least(1, "batch_size", config.batch_size);
  require_at_least(0, "micro_batch_size", config.micro_batch_size);
  require_field(config.micro_batch_size == 0 || config.batch_size % config.micro_batch_size == 0, "micro_batch_size",
                "0 or a divisor of batch_size", config.micro_batch_size);
  require_at_least(1, "context_length", config.context_length);
  require_field(std::isfinite(config.learning_rate) && config.learning_rate > 0, "learning_rate", "positive",
                config.learning_rate);
  require_at_least(0, "warmup_steps", config.warmup_steps);
  require_field(config.final_learning_rate >= 0 && config.final_learning_rate <= 1, "final_learning_rate",
                "a fraction in [0, 1]", config.final_learning_rate);
  require_fraction("beta1", config.beta1);
  require_fraction("beta2", config.beta2);
  require_field(config.epsilon > 0, "epsilon", "positive", config.epsilon);
  require_field(config.weight_decay >= 0, "weight_decay", "at least 0", config.weight_decay);
  require_field(config.dtype == "fp32" || config.dtype == "bf16", "dtype", "fp32 or bf16", config.dtype);
  require_field(std::isfinite(config.max_gradient_norm) && config.max_gradient_norm > 0, "max_gradient_norm",
                "positive", config.max_gradient_norm);
  require_at_least(0, "seed", config.seed);
  require_at_least(0, "evaluation_interval", config.evaluation_interval);
  require_at_least(0, "checkpoint_interval", config.checkpoint_interval);
  require_at_least(1, "keep_checkpoints", config.keep_checkpoints);
  require_at_least(0, "sample_interval", config.sample_interval);
  require_at_least(1, "sample_tokens", config.sample_tokens);
}

std::string to_json(const TrainConfig& config) {
  nlohmann::ordered_json json;
  for_each_field(config, [&](const char* name, const auto& value, Effect) { json[name] = value; });
  return json.dump(2);
}

TrainConfig parse_train_config(const std::string& json_text) {
  nlohmann::json json = nlohmann::json::parse(json_text, nullptr, /*allow_exceptions=*/false);
  require(json.is_object(), ErrorCode::io, "[parse_train_config] the text must be a JSON object; got ",
          json.type_name());
  TrainConfig config;
  for_each_field(config, [&](const char* name, auto& value, Effect) {
    using T = std::remove_cvref_t<decltype(value)>;
    require(json.contains(name) && holds_a<T>(json[name]), ErrorCode::io, "[parse_train_config] key ", name,
            " must be ", kExpected<T>, "; got ", json.contains(name) ? json[name].dump() : "nothing");
    json[name].get_to(value);
    json.erase(name);
  });
  require(json.empty(), ErrorCode::io, "[parse_train_config] unknown key ", json.empty() ? "" : json.begin().key());
  return config;
}

std::string trajectory_difference(const TrainConfig& saved, const TrainConfig& wanted) {
  const auto saved_json = nlohmann::json::parse(to_json(saved));
  std::string difference;
  for_each_field(wanted, [&](const char* name, const auto& value, Effect effect) {
    const nlohmann::json json = value;
    if (effect != Effect::trajectory || !difference.empty() || saved_json[name] == json) return;
    difference = concat(name, ' ', saved_json[name].dump(), " became ", json.dump());
  });
  return difference;
}

}  // namespace comba::training
