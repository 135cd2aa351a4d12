#pragma once

#include <c10/core/Device.h>

#include <string>

namespace comba {

/// What the maker's data sheet promises of a GPU; 0 where it is not known here, and on the CPU.
struct DeviceRates {
  std::string name;             ///< of the device, "cpu" for the CPU
  double flop_per_second = 0;   ///< dense bf16 matrix products
  double bytes_per_second = 0;  ///< memory
};

DeviceRates device_rates(c10::Device device);

}  // namespace comba
