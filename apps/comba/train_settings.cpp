#include "train_settings.h"

#include <nlohmann/json.hpp>
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

}  // namespace

TrainSettings read_train_settings(RunConfig& config) {
  TrainSettings settings;
  settings.model = read_model(config, settings.initial_model);
  read_path(config, "data.path", "--data", settings.data);
  training::for_each_field(settings.train, [&](const char* name, auto& value, training::Effect) {
    config.read(std::string("train.") + name, value);
  });
  config.read("train.threads", settings.threads);
  read_path(config, "output.path", "--out", settings.output);
  config.finish();
  training::validate(settings.train);
  require(settings.threads >= 0, ErrorCode::invalid_argument, "[train] threads must be at least 0; got ",
          settings.threads);
  return settings;
}

}  // namespace comba::cli
