#pragma once

#include <c10/core/Device.h>

#include "gpu_cases.h"
#include "gpu_clock.h"

namespace comba::benchmarks {

/// Loads LibTorch's part for GPUs, which nothing is linked with (cmake/LibTorch.cmake). Throws Error where there is no
/// GPU, or no such part.
void load_torch_for_gpus();

/// The case on random tensors of its own, on the current stream of `device`. Throws Error (unsupported) when nothing
/// implements it.
GpuCall make_gpu_call(const GpuCase& x, c10::Device device);

/// A copy that reads and writes `bytes` in all, by a kernel: the copy engines, to which a plain copy goes, reach two
/// thirds of its rate on an H200.
GpuCall make_copy(double bytes, c10::Device device);

/// A product of two square bf16 matrices.
GpuCall make_product(std::int64_t size, c10::Device device);

}  // namespace comba::benchmarks
