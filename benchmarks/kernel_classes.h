#pragma once

#include <array>
#include <cstddef>
#include <string>
#include <vector>

#include "libtorch/gpu_rates.h"
#include "models/model_config.h"
#include "training/train_config.h"

/// Where the time of a training step goes, by class of kernel.
namespace comba::benchmarks {

inline constexpr std::array<const char*, 7> kKernelClasses = {
    "matrix products", "delta rule", "attention", "conv, norm, element-wise", "optimizer", "loss", "copies"};

/// Index in kKernelClasses of a GPU kernel, by its name.
std::size_t class_of(const std::string& kernel);

/// What each class must take at least, from its FLOP or bytes and the device's rates; 0 where nothing is known.
///
///     matrix products   training_flops_per_token(...).linear at the rate of matrix products
///     delta rule        training_flops_per_token(...).mixer, and so attention
///     element-wise      bytes of a block's inputs and outputs in 16 bits, three times (forward, backward twice)
///     optimizer         44 bytes a weight: AdamW 28, gradients from 16 bits 6 and their norm 4, copies to 16 bits 6
///     loss              the logits in 16 bits, written and read forward and backward
std::vector<double> floor_seconds(const models::ModelConfig& model, const training::TrainConfig& config,
                                  const DeviceRates& rates);

}  // namespace comba::benchmarks
