#include "tasks/sweep_results.h"

#include <ATen/Parallel.h>

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

}  // namespace

SweepResults::SweepResults(const Sweep& sweep, const fs::path& directory, bool resume)
    : file_(results_path(directory), settings_of(sweep), resume) {}

bool SweepResults::has(const Cell& cell) const { return file_.has(identity_of(cell)); }

void SweepResults::add(const Cell& cell, const TaskResult& result, at::Device device) {
  Json json = identity_of(cell);
  json["device"] = device.str();
  json["threads"] = at::get_num_threads();
  json["tf32"] = device.is_cuda();
  json["parameters"] = result.num_parameters;
  json["state_bytes"] = result.state_bytes;
  json["accuracy"] = result.progress.epochs.back().accuracy;
  json.update(to_json(result.progress));
  file_.add(json);
}

}  // namespace comba::tasks
