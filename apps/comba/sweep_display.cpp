#include "sweep_display.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "base/file.h"
#include "format.h"

namespace comba::cli {

void SweepDisplay::on_data(const tasks::DataSpec& spec) {
  std::int64_t examples = 0;
  for (const auto& segment : spec.train) examples += segment.examples;
  progress_.note(
      fmt::format("{}: making {} examples of {} to learn from", spec.name, format_count(examples), spec.task));
}

void SweepDisplay::on_cell(const tasks::Cell& cell, std::int64_t index, std::int64_t count) {
  cell_ = fmt::format("[{}/{}] {} {} d {} lr {:g}", index + 1, count, cell.data_set, cell.mixer, cell.hidden_size,
                      cell.learning_rate);
}

void SweepDisplay::on_start(std::int64_t num_parameters, std::int64_t state_bytes, const tasks::TaskProgress& progress,
                            std::int64_t steps_per_epoch) {
  progress_.note(
      fmt::format("{}: {} parameters, a state of {}{}", cell_, format_count(num_parameters), format_bytes(state_bytes),
                  progress.step > 0 ? fmt::format("; going on after step {}", format_count(progress.step)) : ""));
  steps_per_epoch_ = steps_per_epoch;
  first_step_ = progress.step;
  start_ = Clock::now();
}

void SweepDisplay::on_loss(const tasks::TaskProgress& progress, double loss) {
  const double seconds = std::chrono::duration<double>(Clock::now() - start_).count();
  progress_.update(
      fmt::format("{}  epoch {}  step {}/{}  loss {:.4f}{}  {:.1f} steps/s", cell_, progress.epochs.size() + 1,
                  (progress.step - 1) % steps_per_epoch_ + 1, steps_per_epoch_, loss,
                  progress.epochs.empty() ? "" : fmt::format("  accuracy {:.4f}", progress.epochs.back().accuracy),
                  static_cast<double>(progress.step - first_step_) / seconds));
}

void SweepDisplay::on_epoch(const tasks::TaskProgress& progress) {
  const tasks::EpochRecord& epoch = progress.epochs.back();
  progress_.update(fmt::format("{}  epoch {}  loss {:.4f}  accuracy {:.4f}", cell_, progress.epochs.size(), epoch.loss,
                               epoch.accuracy));
}

void SweepDisplay::on_result(const tasks::Cell&, const tasks::TaskResult& result) {
  const tasks::TaskProgress& progress = result.progress;
  std::string slices;
  if (progress.slices.size() > 1) {
    for (const auto& slice : progress.slices) slices += fmt::format(" {}:{:.3f}", slice.slice, slice.accuracy);
  }
  progress_.note(fmt::format("{}: accuracy {:.4f}{} after {}, {}{}", cell_, progress.epochs.back().accuracy, slices,
                             format_counted(static_cast<std::int64_t>(progress.epochs.size()), "epoch"),
                             format_duration(progress.seconds), progress.diverged ? " (diverged)" : ""));
}

void print_results(const std::filesystem::path& path) {
  const auto json = nlohmann::json::parse(read_file(path));
  std::size_t width = 5;
  for (const auto& cell : json["cells"]) width = std::max(width, cell["mixer"].get<std::string>().size());
  fmt::print("{:<12} {:<{}} {:>6} {:>9} {:>10} {:>10} {:>7} {:>9} {:>11}\n", "data", "mixer", width, "width", "rate",
             "parameters", "state", "epochs", "accuracy", "time");
  for (const auto& cell : json["cells"]) {
    fmt::print("{:<12} {:<{}} {:>6} {:>9g} {:>10} {:>10} {:>7} {:>9.4f} {:>11}\n", cell["data_set"].get<std::string>(),
               cell["mixer"].get<std::string>(), width, cell["hidden_size"].get<std::int64_t>(),
               cell["learning_rate"].get<double>(), format_count(cell["parameters"].get<std::int64_t>()),
               format_bytes(cell["state_bytes"].get<std::int64_t>()), cell["epochs"].size(),
               cell["accuracy"].get<double>(), format_duration(cell["seconds"].get<double>()));
  }
  fmt::print("\nwritten to {}\n", path.string());
}

}  // namespace comba::cli
