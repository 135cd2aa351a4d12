#include "device_flag.h"

#include <ATen/Context.h>
#include <CLI/CLI.hpp>

#include <cstdlib>

#include "libtorch/device.h"

namespace comba::cli {

void add_device_flag(CLI::App& command, std::string& device) {
  command.add_option("--device", device, "Where to compute: cpu (default), cuda (a GPU) or cuda:N")
      ->type_name("DEVICE");
}

c10::Device open_device(const std::string& name, int default_gpu) {
  const c10::Device device = find_device(name, default_gpu);
  use_device(device);
  return device;
}

void compute_deterministically() {
  // cuBLAS reads it when it is loaded; a value that the user has set stays.
  ::setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8", /*overwrite=*/0);
  at::globalContext().setDeterministicAlgorithms(true, /*warn_only=*/false);
  at::globalContext().setDeterministicFillUninitializedMemory(false);
  at::globalContext().setDeterministicCuDNN(true);
}

}  // namespace comba::cli
