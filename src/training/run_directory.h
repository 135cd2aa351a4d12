#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <vector>

/// Where a run keeps its files:
///
///     RUN/metrics.jsonl          see MetricsLog
///     RUN/checkpoint-000500/     after 500 steps: a model directory that training can continue from
///     RUN/checkpoint-001000/
///     RUN/best                   -> the checkpoint with the fewest held-out bits per byte, when one was evaluated
namespace comba::training {

/// A checkpoint directory in a run directory. One that has its final name is complete.
struct CheckpointEntry {
  std::int64_t step = 0;
  std::filesystem::path path;
};

/// RUN/checkpoint-STEP.
std::filesystem::path checkpoint_path(const std::filesystem::path& run, std::int64_t step);

/// The file of a run's numbers.
std::filesystem::path metrics_path(const std::filesystem::path& run);

/// The checkpoints of a run, oldest first; none when `run` is no directory.
std::vector<CheckpointEntry> list_checkpoints(const std::filesystem::path& run);

std::optional<CheckpointEntry> latest_checkpoint(const std::filesystem::path& run);

/// Makes `run` ready to be written to. A new run needs a directory that is new or empty; one that continues, a
/// directory that a run has written. Throws Error: invalid_argument when it is not so, io when it cannot be made.
void prepare_run_directory(const std::filesystem::path& run, bool resume);

/// The step of the checkpoint with the lowest of `losses`, which are by step; the earlier one of equals. None when no
/// checkpoint has one.
std::optional<std::int64_t> best_checkpoint(const std::filesystem::path& run,
                                            const std::map<std::int64_t, double>& losses);

/// Lets RUN/best mean the checkpoint of `best`, then removes all others but the newest `keep`, and what a killed
/// process left half-written. Throws Error(io) when it cannot.
void prune_checkpoints(const std::filesystem::path& run, std::int64_t keep, std::optional<std::int64_t> best = {});

/// The model directory that `path` means: itself when it holds a config.json, or the newest checkpoint when it is a run
/// directory. Throws Error(io) when it is neither.
std::filesystem::path find_model_directory(const std::filesystem::path& path);

}  // namespace comba::training
