#include "tasks/task_checkpoint.h"

#include "base/message.h"
#include "tasks/task_progress_json.h"

namespace comba::tasks {
namespace {

constexpr const char* kProgressKey = "progress";

}  // namespace

void save_task_checkpoint(const std::filesystem::path& path, const TaskCheckpoint& checkpoint) {
  models::NamedTensors on_host;
  for (const auto& [name, tensor] : checkpoint.tensors) on_host[name] = tensor.detach().cpu();
  models::write_safetensors(path, on_host, {{kProgressKey, to_json(checkpoint.progress).dump()}});
}

TaskCheckpoint load_task_checkpoint(const std::filesystem::path& path) {
  const models::SafetensorsFile file = models::read_safetensors(path);
  const auto text = file.metadata.find(kProgressKey);
  try {
    const auto json = nlohmann::ordered_json::parse(text == file.metadata.end() ? "" : text->second);
    return {.tensors = file.tensors, .progress = progress_from_json(json)};
  } catch (const nlohmann::json::exception&) {
    throw Error(ErrorCode::io, concat("[task] the file must be a checkpoint of a task; got ", path.string()));
  }
}

}  // namespace comba::tasks
