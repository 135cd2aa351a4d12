#include "ablation_display.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <vector>

#include "base/file.h"
#include "format.h"

namespace comba::cli {
namespace {

struct Statistics {
  double mean = 0, deviation = 0;  // of a sample; 0 for one value
};

Statistics statistics_of(const std::vector<double>& values) {
  Statistics result;
  for (const double value : values) result.mean += value / static_cast<double>(values.size());
  if (values.size() < 2) return result;
  for (const double value : values) result.deviation += (value - result.mean) * (value - result.mean);
  result.deviation = std::sqrt(result.deviation / static_cast<double>(values.size() - 1));
  return result;
}

}  // namespace

void AblationDisplay::on_cell(const ablation::Cell& cell, std::int64_t index, std::int64_t count) {
  cell_ = fmt::format("[{}/{}] {}, seed {}", index + 1, count, cell.variant->name, cell.seed);
}

void AblationDisplay::on_start(const ablation::CellRun& run, std::int64_t num_parameters,
                               const ablation::CellProgress& progress) {
  if (!lines_) {
    progress_.note(
        fmt::format("{}: {} parameters{}", cell_, format_count(num_parameters),
                    progress.step > 0 ? fmt::format("; going on after step {}", format_count(progress.step)) : ""));
  }
  first_step_ = progress.step;
  num_steps_ = run.config.steps;
  tokens_per_step_ = run.config.batch_size * run.config.context_length;
  start_ = Clock::now();
}

void AblationDisplay::on_step(std::int64_t step, double loss) {
  if (lines_) return;
  const double seconds = std::chrono::duration<double>(Clock::now() - start_).count();
  const double tokens = static_cast<double>((step - first_step_) * tokens_per_step_);
  progress_.update(fmt::format("{}  step {}/{}  loss {:.4f}  {} tokens/s", cell_, step, num_steps_, loss,
                               format_count(static_cast<std::int64_t>(tokens / seconds))));
}

void AblationDisplay::on_result(const ablation::Cell&, const ablation::CellResult& result) {
  const ablation::CellProgress& progress = result.progress;
  const std::string time = format_duration(progress.seconds);
  if (!progress.heldout)
    return progress_.note(fmt::format("{}: diverged after step {}, {}", cell_, progress.step, time));
  progress_.note(fmt::format("{}: loss {:.4f}, held-out {:.4f} nats a token, {}", cell_, result.final_loss(),
                             progress.heldout->loss(), time));
}

void print_ablation(const std::filesystem::path& path) {
  const auto json = nlohmann::json::parse(read_file(path));
  std::vector<std::string> order;
  std::map<std::string, std::vector<double>> losses;
  std::size_t width = 7;
  std::vector<nlohmann::json> cells = json["cells"];
  std::ranges::stable_sort(cells, {}, [](const auto& cell) { return !cell["changes"].empty(); });  // the base first
  for (const auto& cell : cells) {
    const auto variant = cell["variant"].get<std::string>();
    width = std::max(width, variant.size());
    if (!losses.contains(variant)) order.push_back(variant);
    std::vector<double>& values = losses[variant];
    if (cell.contains("heldout")) values.push_back(cell["heldout"]["loss"].get<double>());
  }
  fmt::print("{:<{}} {:>5}  {}\n", "variant", width, "cells", "held-out loss, nats a token");
  for (const std::string& variant : order) {
    const std::vector<double>& values = losses[variant];
    const Statistics loss = statistics_of(values);
    std::string text = values.empty() ? "diverged" : fmt::format("{:.4f}", loss.mean);
    if (values.size() > 1) text += fmt::format(" +- {:.4f}", loss.deviation);
    fmt::print("{:<{}} {:>5}  {}\n", variant, width, values.size(), text);
  }
  fmt::print("\nwritten to {}; python -m comba.plot_ablation draws it\n", path.string());
}

}  // namespace comba::cli
