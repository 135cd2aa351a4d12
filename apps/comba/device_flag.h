#pragma once

#include <c10/core/Device.h>

#include <string>

namespace CLI {
class App;
}

namespace comba::cli {

/// Adds --device to a command: where it computes.
void add_device_flag(CLI::App& command, std::string& device);

/// The device of that name, for this thread to compute on. `default_gpu` is the one that "cuda" means. Throws Error as
/// find_device does.
c10::Device open_device(const std::string& name, int default_gpu = 0);

/// Lets everything that this process computes have the same bits each time, on a GPU too. To be called before
/// open_device. Throws at the first operation for which LibTorch has no such algorithm.
void compute_deterministically();

}  // namespace comba::cli
