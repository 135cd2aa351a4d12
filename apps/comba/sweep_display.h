#pragma once

#include <chrono>
#include <filesystem>
#include <string>

#include "progress.h"
#include "tasks/sweep.h"

namespace comba::cli {

/// Shows a sweep on the terminal.
class SweepDisplay : public tasks::SweepObserver {
 public:
  void on_data(const tasks::DataSpec& spec) override;
  void on_cell(const tasks::Cell& cell, std::int64_t index, std::int64_t count) override;
  void on_start(std::int64_t num_parameters, std::int64_t state_bytes, const tasks::TaskProgress& progress,
                std::int64_t steps_per_epoch) override;
  void on_loss(const tasks::TaskProgress& progress, double loss) override;
  void on_epoch(const tasks::TaskProgress& progress) override;
  void on_result(const tasks::Cell& cell, const tasks::TaskResult& result) override;

 private:
  using Clock = std::chrono::steady_clock;

  std::string cell_;  // "[3/12] small comba d 64 lr 0.003"
  std::int64_t steps_per_epoch_ = 1;
  std::int64_t first_step_ = 0;
  Clock::time_point start_;
  ProgressLine progress_;
};

/// The table of a results.json.
void print_results(const std::filesystem::path& path);

}  // namespace comba::cli
