#include "ablation/ablation.h"

#include <ATen/Parallel.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "base/message.h"
#include "libtorch/gpu_rates.h"
#include "tasks/results_file.h"

namespace comba::ablation {
namespace fs = std::filesystem;
namespace {

using Json = nlohmann::ordered_json;

Json identity_of(const Cell& cell) { return {{"variant", cell.variant->name}, {"seed", cell.seed}}; }

Json split_json(const data::TokenDataset& split) {
  return {{"tokens", split.num_tokens()}, {"documents", split.num_documents()}, {"bytes", split.num_bytes()}};
}

Json train_json(training::TrainConfig config) {
  Json json = Json::parse(training::to_json(config));
  json.erase("seed");  // each cell's
  return json;
}

/// All that must be the same where results stand beside each other.
Json settings_of(const Ablation& ablation, const data::TokenDataset& train, const data::TokenDataset& heldout) {
  return {{"kind", "ablation"},
          {"train", train_json(ablation.train)},
          {"data",
           {{"md5", train.source_md5()},
            {"tokenizer", train.tokenizer().description()},
            {"train", split_json(train)},
            {"heldout", split_json(heldout)}}},
          {"heldout", {{"windows", ablation.heldout.windows}, {"recall_length", ablation.heldout.recall_length}}}};
}

Json heldout_json(const HeldoutScore& score, double bytes_per_token) {
  Json json = {{"loss", score.loss()},
               {"bits_per_byte", score.loss() / std::log(2.0) / bytes_per_token},
               {"tokens", score.tokens},
               {"recalled_loss", nullptr},
               {"recalled_tokens", score.recalled_tokens}};
  if (score.recalled_tokens > 0) json["recalled_loss"] = score.recalled_loss();
  return json;
}

Json cell_json(const Cell& cell, const CellResult& result, const AblationRun& run, double bytes_per_token) {
  const training::TrainConfig& config = run.ablation.train;
  Json json = identity_of(cell);
  json["changes"] = Json::parse(cell.variant->changes);
  json["paper"] = Json::parse(cell.variant->paper);
  json["model"] = Json::parse(models::to_json(cell.variant->model));
  json["device"] = device_rates(run.device).name;
  json["threads"] = at::get_num_threads();
  json["program"] = run.provenance.program;
  json["commit"] = run.provenance.commit;
  json["parameters"] = result.num_parameters;
  json["tokens"] = result.progress.step * config.batch_size * config.context_length;
  json["seconds"] = result.progress.seconds;
  json["diverged"] = result.progress.diverged;
  json["train_loss"] = result.final_loss();
  if (result.progress.heldout) json["heldout"] = heldout_json(*result.progress.heldout, bytes_per_token);
  json["curve"] = to_json(result.progress)["curve"];
  return json;
}

std::vector<Cell> cells_of(const Ablation& ablation) {
  std::vector<Cell> cells;
  for (const std::int64_t seed : ablation.seeds) {
    for (const Variant& variant : ablation.variants) cells.push_back({&variant, seed});
  }
  return cells;
}

void validate(const Ablation& ablation, const data::TokenDataset& train) {
  training::validate(ablation.train);
  require(!ablation.variants.empty() && !ablation.seeds.empty(), ErrorCode::invalid_argument,
          "[ablation] there must be at least one variant and one seed");
  require(ablation.points > 0 && ablation.heldout.windows > 0 && ablation.heldout.batch_size > 0 &&
              ablation.heldout.recall_length > 0,
          ErrorCode::invalid_argument,
          "[ablation] points, heldout_windows, heldout_batch_size and recall_length must be positive");
  std::set<std::string> names;
  for (const Variant& variant : ablation.variants) {
    require(names.insert(variant.name).second, ErrorCode::invalid_argument, "[ablation] two variants have the name ",
            variant.name);
    require(variant.model.vocab_size >= train.tokenizer().vocab(), ErrorCode::invalid_argument, "[ablation] variant ",
            variant.name, ": vocab_size must be at least the data set's vocabulary of ", train.tokenizer().vocab(),
            "; got ", variant.model.vocab_size);
  }
  for (const std::int64_t seed : ablation.seeds) {
    require(seed >= 0, ErrorCode::invalid_argument, "[ablation] a seed must be at least 0; got ", seed);
  }
}

/// A name means one model in a file.
void require_same_models(const Ablation& ablation, const tasks::ResultsFile& results) {
  for (const Variant& variant : ablation.variants) {
    const Json model = Json::parse(models::to_json(variant.model));
    for (const Json& cell : results.cells()) {
      require(cell["variant"] != variant.name || cell["model"] == model, ErrorCode::invalid_argument, "[ablation] ",
              results.path().string(), " has variant ", variant.name,
              " with another model; give this one another name");
    }
  }
}

}  // namespace

std::string Cell::name() const { return concat(variant->name, "-seed", seed); }

fs::path results_path(const fs::path& directory) { return directory / "results.json"; }

void prepare_results(const Ablation& ablation, const data::TokenDataset& train, const data::TokenDataset& heldout,
                     const fs::path& directory, bool resume) {
  validate(ablation, train);
  require_same_models(ablation,
                      tasks::ResultsFile(results_path(directory), settings_of(ablation, train, heldout), resume));
}

void run_cells(const AblationRun& run, AblationObserver& observer, const StopFlag& stop) {
  const Ablation& ablation = run.ablation;
  tasks::ResultsFile results(results_path(run.directory), settings_of(ablation, run.train, run.heldout),
                             /*resume=*/true);
  const std::vector<Cell> cells = cells_of(ablation);
  const training::Mixture train(run.train);
  const HeldoutText heldout(run.heldout, run.train, ablation.train.context_length, ablation.heldout, run.device);
  for (std::int64_t i = run.next_cell++; i < std::ssize(cells); i = run.next_cell++) {
    const Cell& cell = cells[static_cast<std::size_t>(i)];
    if (results.has(identity_of(cell))) continue;
    observer.on_cell(cell, i, std::ssize(cells));
    training::TrainConfig config = ablation.train;
    config.seed = cell.seed;
    const CellResult result = train_cell({.model = cell.variant->model,
                                          .config = config,
                                          .train = train,
                                          .heldout = heldout,
                                          .device = run.device,
                                          .step = run.step,
                                          .points = ablation.points,
                                          .directory = run.directory / "cells" / cell.name()},
                                         observer, stop);
    results.add(cell_json(cell, result, run, heldout.bytes_per_token()));
    observer.on_result(cell, result);
  }
}

}  // namespace comba::ablation
