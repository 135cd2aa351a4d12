#pragma once

#include <cstdint>
#include <string>

#include "libtorch/device.h"
#include "training/train_config.h"

namespace comba::training {

/// Bytes that training holds from the first step to the last, whatever the batch: fp32 weights, gradients and AdamW's
/// moments of `num_parameters` elements, in bf16 a copy and the gradients of the weights besides, and of
/// `num_processes` each holds its share of the moments.
std::int64_t lasting_bytes(const TrainConfig& config, std::int64_t num_parameters, int num_processes);

/// What to tell when a GPU's memory did not suffice: what used it, and which settings need less.
std::string out_of_memory_message(const TrainConfig& config, std::int64_t num_parameters, int num_processes,
                                  const DeviceMemory& memory);

}  // namespace comba::training
