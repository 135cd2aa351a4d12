#pragma once

#include <c10/core/Device.h>

#include <cstdint>
#include <string>

namespace comba {

/// The device that a user names: "cpu", "cuda" (the GPU number `default_gpu`) or "cuda:N". Throws Error:
/// invalid_argument for another name and for a GPU that is not there, naming how many there are, and unsupported in a
/// build without CUDA.
c10::Device find_device(const std::string& name, int default_gpu = 0);

/// How many GPUs LibTorch can use. Throws Error(unsupported) in a build without CUDA.
int num_gpus();

/// Lets this thread compute on `device`: a GPU's work goes to a stream of its own, which graphs can record.
void use_device(c10::Device device);

/// Gives back what LibTorch keeps of a GPU's memory for tensors to come.
void release_cached_memory(c10::Device device);

/// Waits until everything that was started on `device` is done.
void synchronize(c10::Device device);

/// Most bytes that tensors have had at once on a GPU, those of graphs as they were recorded; 0 on the CPU, where nobody
/// counts.
std::int64_t peak_memory_bytes(c10::Device device);

/// Bytes of the GPU, all of it and what nobody has taken; 0 on the CPU.
struct DeviceMemory {
  std::int64_t total = 0;
  std::int64_t free = 0;
};
DeviceMemory device_memory(c10::Device device);

}  // namespace comba
