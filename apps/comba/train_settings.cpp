#include "train_settings.h"

#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "base/file.h"
#include "base/message.h"
#include "training/run_directory.h"

namespace comba::cli {
namespace {

/// The keys of [model] over those of its `file`, which `init` has too. Without a file they describe a Comba model of
/// the paper's convention, as far as they say nothing else.
models::ModelConfig read_model(RunConfig& config, std::filesystem::path& initial_model) {
  std::filesystem::path file, init;
  config.read("model.file", file);
  config.read("model.init", init);
  if (!init.empty()) initial_model = training::find_model_directory(init);
  if (file.empty() && !init.empty()) file = initial_model / "config.json";
  const nlohmann::ordered_json changes = config.read_section("model");
  require(!file.empty() || !changes.empty(), ErrorCode::invalid_argument,
          "[train] needs a model: model.file or keys of config.json in [model] of the run file (--config FILE), or "
          "--init DIR");
  nlohmann::ordered_json json = {{"model_type", "comba"}};
  if (!file.empty()) json = nlohmann::ordered_json::parse(read_file(file), nullptr, /*allow_exceptions=*/false);
  require(json.is_object(), ErrorCode::invalid_argument, "[config] model.file must hold a JSON object; got ",
          file.string());
  json.update(changes);
  if (file.empty() && json["model_type"] == "comba") json.emplace("comba_convention", "paper");
  models::ModelConfig model = models::parse_model_config(json.dump());
  auto in_force = nlohmann::ordered_json::parse(models::to_json(model));
  if (!init.empty()) in_force["init"] = init.string();
  config.set_section("model", std::move(in_force));
  return model;
}

void read_path(RunConfig& config, const char* key, const char* flag, std::filesystem::path& path) {
  config.read(key, path);
  require(!path.empty(), ErrorCode::invalid_argument, "[train] needs ", flag, " DIR, or ", key, " in the run file");
}

std::vector<MixtureEntry> read_mixture(RunConfig& config) {
  const std::optional<nlohmann::ordered_json> list = config.read_list("data.mixture");
  if (!list) return {};
  std::vector<MixtureEntry> mixture;
  for (const auto& entry : *list) {
    const bool sound = entry.is_object() && entry.size() == 2 && entry.contains("path") && entry["path"].is_string() &&
                       entry.contains("weight") && entry["weight"].is_number();
    require(sound, ErrorCode::invalid_argument,
            "[config] an entry of data.mixture must be {path = \"DIR\", weight = 1.0}, the weight positive and finite; "
            "got ",
            entry.dump());
    mixture.push_back({.path = entry["path"].get<std::string>(), .weight = entry["weight"].get<double>()});
  }
  require(!mixture.empty(), ErrorCode::invalid_argument,
          "[config] data.mixture must have at least one {path = \"DIR\", weight = 1.0}; got []");
  return mixture;
}

}  // namespace

TrainSettings read_train_settings(RunConfig& config) {
  TrainSettings settings;
  settings.model = read_model(config, settings.initial_model);
  read_path(config, "data.path", "--data", settings.data);
  settings.mixture = read_mixture(config);
  training::for_each_field(settings.train, [&](const char* name, auto& value, training::Effect) {
    config.read(std::string("train.") + name, value);
  });
  config.read("train.threads", settings.threads);
  config.read("train.device", settings.device);
  config.read("train.zero_stage", settings.zero_stage);
  read_path(config, "output.path", "--out", settings.output);
  config.finish();
  training::validate(settings.train);
  require(settings.threads >= 0, ErrorCode::invalid_argument, "[train] threads must be at least 0; got ",
          settings.threads);
  require(settings.zero_stage >= 0 && settings.zero_stage <= 2, ErrorCode::invalid_argument,
          "[train] zero_stage must be 0, 1 or 2; got ", settings.zero_stage);
  return settings;
}

}  // namespace comba::cli
