#pragma once

#include <nlohmann/json.hpp>

#include "tasks/task_trainer.h"

namespace comba::tasks {

nlohmann::ordered_json to_json(const TaskProgress& progress);

/// Throws nlohmann::json::exception for what to_json did not write.
TaskProgress progress_from_json(const nlohmann::ordered_json& json);

}  // namespace comba::tasks
