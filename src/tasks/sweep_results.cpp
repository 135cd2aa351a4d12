#include "tasks/sweep_results.h"

#include <ATen/Parallel.h>

#include "base/file.h"
#include "base/message.h"
#include "tasks/task_progress_json.h"

namespace comba::tasks {
namespace fs = std::filesystem;
namespace {

using Json = nlohmann::ordered_json;

Json to_json(const std::vector<SegmentSpec>& segments) {
  Json json = Json::array();
  for (const SegmentSpec& segment : segments) {
    json.push_back({{"length", segment.length}, {"items", segment.items}, {"examples", segment.examples}});
  }
  return json;
}

Json to_json(const DataSpec& spec) {
  return {{"name", spec.name},
          {"task", spec.task},
          {"vocab", spec.vocab},
          {"random_non_queries", spec.random_non_queries},
          {"batch_size", spec.batch_size},
          {"test_batch_size", spec.test_batch_size},
          {"slices", slice_name(spec.task)},
          {"train", to_json(spec.train)},
          {"test", to_json(spec.test)}};
}

/// All that must be the same where results stand beside each other.
Json settings_of(const Sweep& sweep) {
  Json data_sets = Json::array();
  for (const DataSpec& spec : sweep.data_sets) data_sets.push_back(to_json(spec));
  return {{"setting", sweep.setting},
          {"data_sets", data_sets},
          {"model", {{"layers", sweep.num_layers}, {"heads", sweep.num_heads}}},
          {"training",
           {{"epochs", sweep.training.epochs},
            {"weight_decay", sweep.training.weight_decay},
            {"stop_accuracy", sweep.training.stop_accuracy},
            {"seed", sweep.training.seed}}}};
}

Json identity_of(const Cell& cell) {
  return {{"data_set", cell.data_set},
          {"mixer", cell.mixer},
          {"hidden_size", cell.hidden_size},
          {"learning_rate", cell.learning_rate}};
}

Json read_results(const fs::path& path, const Json& settings) {
  Json json = Json::parse(read_file(path), nullptr, /*allow_exceptions=*/false);
  require(json.is_object() && json.contains("cells") && json["cells"].is_array(), ErrorCode::io,
          "[sweep] the file must be results of this program; got ", path.string());
  for (const auto& [key, value] : settings.items()) {
    require(json.contains(key) && json[key] == value, ErrorCode::invalid_argument, "[sweep] ", path.string(),
            " can only go on with its own settings; got another ", key, ": ", value.dump());
  }
  return json;
}

}  // namespace

SweepResults::SweepResults(const Sweep& sweep, const fs::path& directory, bool resume)
    : path_(results_path(directory)) {
  const Json settings = settings_of(sweep);
  const bool exists = fs::exists(path_);
  require(!exists || resume, ErrorCode::invalid_argument, "[sweep] ", directory.string(),
          " holds results (continue them with --resume)");
  require(exists || !resume, ErrorCode::invalid_argument, "[sweep] there is nothing to resume: ", path_.string(),
          " does not exist");
  if (exists) {
    json_ = read_results(path_, settings);
    return;
  }
  std::error_code failure;
  fs::create_directories(directory, failure);
  require(!failure, ErrorCode::io, "[sweep] cannot make ", directory.string(), ": ", failure.message());
  json_ = settings;
  json_["cells"] = Json::array();
  write();
}

bool SweepResults::has(const Cell& cell) const {
  const Json identity = identity_of(cell);
  for (const Json& known : json_["cells"]) {
    bool same = true;
    for (const auto& [key, value] : identity.items()) same = same && known.contains(key) && known[key] == value;
    if (same) return true;
  }
  return false;
}

void SweepResults::add(const Cell& cell, const TaskResult& result, at::Device device) {
  Json json = identity_of(cell);
  json["device"] = device.str();
  json["threads"] = at::get_num_threads();
  json["tf32"] = device.is_cuda();
  json["parameters"] = result.num_parameters;
  json["state_bytes"] = result.state_bytes;
  json["accuracy"] = result.progress.epochs.back().accuracy;
  json.update(to_json(result.progress));
  json_["cells"].push_back(json);
  write();
}

void SweepResults::write() const { write_file_atomically(path_, json_.dump(1) + '\n'); }

}  // namespace comba::tasks
