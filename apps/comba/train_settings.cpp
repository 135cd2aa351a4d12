#include "train_settings.h"

#include <nlohmann/json.hpp>
#include <string>

#include "base/file.h"
#include "base/message.h"

namespace comba::cli {
namespace {

/// The keys of [model] over those of its `file`, or else over the program's defaults.
models::ModelConfig read_model(RunConfig& config) {
  std::filesystem::path file;
  config.read("model.file", file);
  const std::string base_text = file.empty() ? models::to_json(models::ModelConfig{}) : read_file(file);
  auto json = nlohmann::ordered_json::parse(base_text, nullptr, /*allow_exceptions=*/false);
  require(json.is_object(), ErrorCode::invalid_argument, "[config] model.file must hold a JSON object; got ",
          file.string());
  json.update(config.read_section("model"));
  return models::parse_model_config(json.dump());
}

void read_path(RunConfig& config, const char* key, const char* flag, const std::filesystem::path& given,
               std::filesystem::path& path) {
  config.read(key, path);
  if (!given.empty()) path = given;
  require(!path.empty(), ErrorCode::invalid_argument, "[train] needs ", flag, " DIR, or ", key, " in the run file");
}

}  // namespace

TrainSettings read_train_settings(RunConfig& config, const std::filesystem::path& data,
                                  const std::filesystem::path& output) {
  TrainSettings settings;
  settings.model = read_model(config);
  read_path(config, "data.path", "--data", data, settings.data);
  training::for_each_field(settings.train, [&](const char* name, auto& value, training::Effect) {
    config.read(std::string("train.") + name, value);
  });
  config.read("train.threads", settings.threads);
  read_path(config, "output.path", "--out", output, settings.output);
  config.finish();
  training::validate(settings.train);
  require(settings.threads >= 0, ErrorCode::invalid_argument, "[train] threads must be at least 0; got ",
          settings.threads);
  return settings;
}

}  // namespace comba::cli
