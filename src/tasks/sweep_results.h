#pragma once

#include <filesystem>

#include "tasks/results_file.h"
#include "tasks/sweep.h"

namespace comba::tasks {

/// The file of a sweep's results: see run_sweep.
class SweepResults {
 public:
  /// Opens the results of an earlier run, or begins new ones. Throws Error as run_sweep does.
  SweepResults(const Sweep& sweep, const std::filesystem::path& directory, bool resume);

  bool has(const Cell& cell) const;
  /// Adds a cell and writes the file.
  void add(const Cell& cell, const TaskResult& result, at::Device device);

 private:
  ResultsFile file_;
};

}  // namespace comba::tasks
