#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "tasks/sweep.h"

namespace CLI {
class App;
}

namespace comba::cli {

/// The flags of a command that compares models on a synthetic task. What is empty stays as the setting has it.
struct SweepFlags {
  std::vector<std::string> data_sets, mixers, train, test;
  std::vector<std::int64_t> sizes;
  std::vector<double> rates;
  std::int64_t heads = 0, layers = 0, epochs = 0, batch_size = 0, vocab = 0;
  std::int64_t seed = -1;
  double stop_accuracy = -1;
  std::filesystem::path out, dump;
  bool resume = false;
  std::string device = "cpu";
  int threads = 0;
};

void add_sweep_flags(CLI::App& command, SweepFlags& flags);

/// Changes a sweep as the flags say, then runs it, or with --dump writes its data.
void run_sweep_command(tasks::Sweep sweep, const SweepFlags& flags);

}  // namespace comba::cli
