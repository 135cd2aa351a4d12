#include "training/run_directory.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <string>
#include <string_view>
#include <system_error>

#include "base/file.h"
#include "base/message.h"

namespace comba::training {
namespace fs = std::filesystem;
namespace {

constexpr std::string_view kCheckpointPrefix = "checkpoint-";

constexpr const char* kBest = "best";

/// The step in a name such as checkpoint-000500.
std::optional<std::int64_t> step_of(const std::string& name) {
  if (!name.starts_with(kCheckpointPrefix)) return std::nullopt;
  const char* first = name.data() + kCheckpointPrefix.size();
  const char* last = name.data() + name.size();
  std::int64_t step = 0;
  const auto [end, error] = std::from_chars(first, last, step);
  if (first == last || end != last || error != std::errc()) return std::nullopt;
  return step;
}

/// Whether a name is that of a checkpoint a process was still writing: see temporary_path_beside.
bool is_partial_checkpoint(const std::string& name) {
  return name.starts_with(concat('.', kCheckpointPrefix)) && name.ends_with(".partial");
}

void remove_tree(const fs::path& path) {
  std::error_code failure;
  fs::remove_all(path, failure);
  require(!failure, ErrorCode::io, "[run directory] cannot remove ", path.string(), ": ", failure.message());
}

/// Takes its final name from a checkpoint first, so that a process killed here leaves none that is half there.
void remove_checkpoint(const fs::path& path) {
  const fs::path hidden = temporary_path_beside(path);
  std::error_code failure;
  fs::rename(path, hidden, failure);
  require(!failure, ErrorCode::io, "[run directory] cannot remove ", path.string(), ": ", failure.message());
  remove_tree(hidden);
}

/// Makes `link` a symbolic link to `target`, in exchange for an earlier one.
void link_atomically(const fs::path& link, const fs::path& target) {
  const fs::path fresh = temporary_path_beside(link);
  std::error_code failure;
  fs::create_symlink(target, fresh, failure);
  if (!failure) fs::rename(fresh, link, failure);
  require(!failure, ErrorCode::io, "[run directory] cannot make the link ", link.string(), ": ", failure.message());
}

}  // namespace

fs::path checkpoint_path(const fs::path& run, std::int64_t step) {
  return run / fmt::format("{}{:06}", kCheckpointPrefix, step);
}

fs::path metrics_path(const fs::path& run) { return run / "metrics.jsonl"; }

std::vector<CheckpointEntry> list_checkpoints(const fs::path& run) {
  std::vector<CheckpointEntry> checkpoints;
  std::error_code no_directory;
  for (const fs::directory_entry& entry : fs::directory_iterator(run, no_directory)) {
    const auto step = step_of(entry.path().filename().string());
    if (step && entry.is_directory()) checkpoints.push_back({*step, entry.path()});
  }
  std::ranges::sort(checkpoints, {}, &CheckpointEntry::step);
  return checkpoints;
}

std::optional<CheckpointEntry> latest_checkpoint(const fs::path& run) {
  const std::vector<CheckpointEntry> checkpoints = list_checkpoints(run);
  if (checkpoints.empty()) return std::nullopt;
  return checkpoints.back();
}

void prepare_run_directory(const fs::path& run, bool resume) {
  std::error_code failure;
  const bool exists = fs::exists(run, failure);
  require(!exists || fs::is_directory(run, failure), ErrorCode::invalid_argument,
          "[run directory] the output must be a directory; got the file ", run.string());
  if (resume) {
    require(fs::exists(metrics_path(run), failure), ErrorCode::invalid_argument,
            "[run directory] a run to resume must have a metrics.jsonl; got none in ", run.string());
    return;
  }
  fs::create_directories(run, failure);
  require(!failure, ErrorCode::io, "[run directory] cannot make ", run.string(), ": ", failure.message());
  if (fs::is_empty(run, failure) && !failure) return;
  const auto latest = latest_checkpoint(run);
  require(false, ErrorCode::invalid_argument, "[run directory] a new run needs a new or empty directory; got ",
          run.string(),
          latest ? concat(", which holds a run of ", latest->step, " steps (continue it with --resume)")
                 : std::string(", which has other files in it"));
}

std::optional<std::int64_t> best_checkpoint(const fs::path& run, const std::map<std::int64_t, double>& losses) {
  auto best = losses.end();
  for (const CheckpointEntry& checkpoint : list_checkpoints(run)) {
    const auto loss = losses.find(checkpoint.step);
    if (loss != losses.end() && (best == losses.end() || loss->second < best->second)) best = loss;
  }
  return best == losses.end() ? std::nullopt : std::optional(best->first);
}

void prune_checkpoints(const fs::path& run, std::int64_t keep, std::optional<std::int64_t> best) {
  if (best) link_atomically(run / kBest, checkpoint_path(run, *best).filename());
  std::vector<fs::path> partial;
  for (const fs::directory_entry& entry : fs::directory_iterator(run)) {
    if (is_partial_checkpoint(entry.path().filename().string())) partial.push_back(entry.path());
  }
  for (const fs::path& path : partial) remove_tree(path);
  const std::vector<CheckpointEntry> checkpoints = list_checkpoints(run);
  for (std::size_t i = 0; i + static_cast<std::size_t>(keep) < checkpoints.size(); ++i) {
    if (checkpoints[i].step != best) remove_checkpoint(checkpoints[i].path);
  }
}

fs::path find_model_directory(const fs::path& path) {
  std::error_code failure;
  if (fs::exists(path / "config.json", failure)) return path;
  const auto latest = latest_checkpoint(path);
  require(latest.has_value(), ErrorCode::io,
          "[model directory] a model has a config.json, a run has checkpoints; got neither in ", path.string());
  return latest->path;
}

}  // namespace comba::training
