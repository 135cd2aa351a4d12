#include "training/training_checkpoint.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "base/atomic_directory.h"
#include "base/file.h"
#include "base/message.h"
#include "models/checkpoint.h"

namespace comba::training {
namespace fs = std::filesystem;
namespace {

constexpr const char* kTokenizerFile = "comba_tokenizer.json";
constexpr const char* kOptimizerFile = "optimizer.safetensors";
constexpr const char* kRecordFile = "training.json";

std::string to_json(const TrainingRecord& record) {
  nlohmann::ordered_json json;
  json["step"] = record.step;
  json["num_threads"] = record.num_threads;
  json["num_processes"] = record.num_processes;
  json["device"] = record.device;
  json["dataset_md5"] = record.dataset_md5;
  json["config"] = nlohmann::ordered_json::parse(training::to_json(record.config));
  return json.dump(2) + '\n';
}

/// "num_heads 4 became 8" for the first key of config.json that differs; empty when none does.
std::string model_difference(const models::ModelConfig& saved, const models::ModelConfig& wanted) {
  const auto before = nlohmann::ordered_json::parse(models::to_json(saved));
  const auto now = nlohmann::ordered_json::parse(models::to_json(wanted));
  const auto text = [](const nlohmann::ordered_json& json, const std::string& key) {
    return json.contains(key) ? json[key].dump() : std::string("nothing");
  };
  for (const auto* keys : {&before, &now}) {
    for (const auto& [key, value] : keys->items()) {
      if (text(before, key) != text(now, key)) return concat(key, ' ', text(before, key), " became ", text(now, key));
    }
  }
  return {};
}

}  // namespace

void save_training_checkpoint(Trainer& trainer, const Mixture& dataset, const fs::path& directory) {
  const models::NamedTensors optimizer_state = trainer.optimizer_state();
  if (!trainer.group().leads()) return;
  const TrainingRecord record{.step = trainer.num_steps(),
                              .config = trainer.config(),
                              .dataset_md5 = dataset.source_md5(),
                              .num_threads = at::get_num_threads(),
                              .num_processes = trainer.group().size(),
                              .device = c10::DeviceTypeName(trainer.model().device().type(), /*lower_case=*/true)};
  AtomicDirectory checkpoint(directory);
  models::save_model(trainer.model(), checkpoint.staging());
  models::write_safetensors(checkpoint.staging() / kOptimizerFile, optimizer_state);
  write_file_atomically(checkpoint.staging() / kTokenizerFile, dataset.tokenizer().to_json());
  write_file_atomically(checkpoint.staging() / kRecordFile, to_json(record));
  checkpoint.commit();
}

TrainingRecord read_training_record(const fs::path& directory) {
  const fs::path path = directory / kRecordFile;
  const auto json = nlohmann::json::parse(read_file(path), nullptr, /*allow_exceptions=*/false);
  const bool complete = json.is_object() && json.contains("step") && json["step"].is_number_integer() &&
                        json.contains("num_threads") && json["num_threads"].is_number_integer() &&
                        json.contains("dataset_md5") && json["dataset_md5"].is_string() && json.contains("config");
  // Records from before there were groups of processes do not say.
  const auto processes = complete && json.contains("num_processes") ? json["num_processes"] : nlohmann::json(1);
  require(complete && processes.is_number_integer(), ErrorCode::io,
          "[read_training_record] the file must be a training record of this program; got ", path.string());
  return {.step = json["step"].get<std::int64_t>(),
          .config = parse_train_config(json["config"].dump()),
          .dataset_md5 = json["dataset_md5"].get<std::string>(),
          .num_threads = json["num_threads"].get<int>(),
          .num_processes = processes.get<int>(),
          .device = json.value("device", "cpu")};
}

void require_same_run(const fs::path& directory, const models::ModelConfig& model, const TrainConfig& config,
                      const Mixture& dataset) {
  const TrainingRecord record = read_training_record(directory);
  const std::string difference = trajectory_difference(record.config, config);
  require(difference.empty(), ErrorCode::invalid_argument, "[resume] ", directory.string(),
          " can only continue with its own configuration; got another: ", difference);
  const std::string other_model = model_difference(models::load_model_config(directory / "config.json"), model);
  require(
      other_model.empty(), ErrorCode::invalid_argument, "[resume] ", directory.string(),
      " can only continue with its own model; the configuration given is not that of its config.json: ", other_model);
  require(record.dataset_md5 == dataset.source_md5(), ErrorCode::invalid_argument, "[resume] ", directory.string(),
          " can only continue with its own data (md5 ", record.dataset_md5, "); got data of md5 ",
          dataset.source_md5());
}

Trainer load_training_checkpoint(const fs::path& directory, const Mixture& dataset, const TrainConfig& config,
                                 distributed::ProcessGroup& group, c10::Device device, const StepOptions& step) {
  const auto model = models::load_model(directory);
  model->to(device);
  Trainer trainer(model, dataset, config, group, step);
  trainer.load_optimizer_state(models::read_safetensors(directory / kOptimizerFile).tensors);
  require(trainer.num_steps() == read_training_record(directory).step, ErrorCode::io,
          "[load_training_checkpoint] the files of a checkpoint must be of one step; got others in ",
          directory.string());
  return trainer;
}

void load_initial_weights(models::CausalLM& model, const fs::path& directory, const Mixture& dataset) {
  std::error_code failure;
  require(!fs::exists(directory / kTokenizerFile, failure) ||
              load_tokenizer(directory).to_json() == dataset.tokenizer().to_json(),
          ErrorCode::invalid_argument, "[train] the data's tokenizer must be that of the model to begin with; got ",
          "another in ", (directory / kTokenizerFile).string());
  models::load_weights(model, directory);
}

data::Tokenizer load_tokenizer(const fs::path& directory, const std::string& python) {
  const fs::path path = directory / kTokenizerFile;
  return data::Tokenizer::from_json(read_file(path), path.string(), python);
}

}  // namespace comba::training
