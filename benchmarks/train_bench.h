#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "training/train_config.h"

/// Training steps of a model on random tokens.
namespace comba::benchmarks {

struct TrainBench {
  std::filesystem::path model;  ///< config.json
  std::string device = "cpu";
  training::TrainConfig config = {.batch_size = 16, .context_length = 2048, .dtype = "bf16"};
  std::int64_t warmup = 6;  ///< steps that are not timed; on a GPU the fourth records the graphs
  std::int64_t steps = 20;  ///< steps that are timed
  bool graphs = true;
  bool breakdown = false;            ///< time by class of kernel; GPU only
  std::filesystem::path trace = {};  ///< Chrome trace of three more steps
};

/// Times the steps, prints what was measured, and returns it as JSON: {context, tokens_per_second, step_seconds,
/// median_step_seconds, first_step_seconds, flop_per_token, flop_per_second, of_peak, peak_memory_bytes, graphs,
/// breakdown: [{class, seconds, runs, floor_seconds, kernels: [{name, seconds, runs}]}]}.
std::string bench_training(const TrainBench& bench);

}  // namespace comba::benchmarks
