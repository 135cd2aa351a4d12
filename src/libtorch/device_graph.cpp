#include "libtorch/device_graph.h"

#include "libtorch/cuda_library.h"

namespace comba {

std::unique_ptr<DeviceGraph> make_device_graph() {
  const auto make = reinterpret_cast<DeviceGraph* (*)()>(cuda_function("comba_make_device_graph"));
  return std::unique_ptr<DeviceGraph>(make());
}

}  // namespace comba
