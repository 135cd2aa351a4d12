#pragma once

#include <chrono>
#include <filesystem>
#include <string>

#include "ablation/ablation.h"
#include "progress.h"

namespace comba::cli {

/// Shows on the terminal what one process does of a comparison.
class AblationDisplay : public ablation::AblationObserver {
 public:
  /// `lines`: there are other processes, and only whole lines are written.
  explicit AblationDisplay(bool lines) : lines_(lines) {}

  void on_cell(const ablation::Cell& cell, std::int64_t index, std::int64_t count) override;
  void on_start(const ablation::CellRun& run, std::int64_t num_parameters,
                const ablation::CellProgress& progress) override;
  void on_step(std::int64_t step, double loss) override;
  void on_result(const ablation::Cell& cell, const ablation::CellResult& result) override;

 private:
  using Clock = std::chrono::steady_clock;

  bool lines_;
  std::string cell_;  // "[3/42] no-output-gate, seed 1"
  std::int64_t first_step_ = 0, num_steps_ = 0, tokens_per_step_ = 0;
  Clock::time_point start_;
  ProgressLine progress_;
};

/// The means of a results.json.
void print_ablation(const std::filesystem::path& path);

}  // namespace comba::cli
