#pragma once

#include <filesystem>

#include "models/safetensors.h"
#include "tasks/task_trainer.h"

namespace comba::tasks {

/// A training that is not finished: its tensors by name, and where it stands.
struct TaskCheckpoint {
  models::NamedTensors tensors;
  TaskProgress progress;
};

/// Writes one safetensors file, which appears whole or not at all.
void save_task_checkpoint(const std::filesystem::path& path, const TaskCheckpoint& checkpoint);

/// Throws Error(io) for a file that cannot be read or is no such checkpoint.
TaskCheckpoint load_task_checkpoint(const std::filesystem::path& path);

}  // namespace comba::tasks
