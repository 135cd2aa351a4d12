#include "training/memory_need.h"

#include <fmt/format.h>

#include "base/message.h"

namespace comba::training {
namespace {

std::string gibibytes(std::int64_t bytes) { return fmt::format("{:.1f} GiB", static_cast<double>(bytes) / (1 << 30)); }

/// The settings that need less memory and are not at their least.
std::string advice(const TrainConfig& config, std::int64_t micro_batch_size) {
  std::string text;
  const auto add = [&](const std::string& setting) { text += (text.empty() ? "" : ", ") + setting; };
  if (micro_batch_size > 1) add(fmt::format("train.micro_batch_size = {}", micro_batch_size / 2));
  if (!config.recompute_blocks) add("train.recompute_blocks = true");
  if (config.dtype != "bf16") add("train.dtype = bf16");
  return text.empty() ? "a smaller train.context_length or a smaller model" : text;
}

}  // namespace

std::int64_t lasting_bytes(const TrainConfig& config, std::int64_t num_parameters, int num_processes) {
  const std::int64_t weights_and_gradients = config.dtype == "bf16" ? 4 + 4 + 2 + 2 : 4 + 4 + 4;
  return num_parameters * weights_and_gradients + num_parameters * 8 / num_processes;
}

std::string out_of_memory_message(const TrainConfig& config, std::int64_t num_parameters, int num_processes,
                                  const DeviceMemory& memory) {
  const std::int64_t share = config.batch_size / num_processes;
  const std::int64_t micro_batch_size = config.micro_batch_size > 0 ? config.micro_batch_size : share;
  const std::int64_t lasting = lasting_bytes(config, num_parameters, num_processes);
  return concat("[train] the GPU's memory must suffice; got ", gibibytes(memory.total),
                ", of which weights, gradients ", "and optimizer take ", gibibytes(lasting), " and the activations of ",
                micro_batch_size, " sequences of ", config.context_length,
                " tokens want more than is left; less is needed with ", advice(config, micro_batch_size));
}

}  // namespace comba::training
