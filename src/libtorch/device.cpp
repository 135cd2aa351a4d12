#include "libtorch/device.h"

#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <algorithm>
#include <charconv>

#include "base/message.h"
#include "libtorch/cuda_library.h"

namespace comba {
namespace {

using c10::CachingAllocator::StatType;
using c10::impl::VirtualGuardImpl;

constexpr auto kAll = static_cast<std::size_t>(StatType::AGGREGATE);

/// N of "cuda:N".
int gpu_number(const std::string& name, int default_gpu) {
  if (name == "cuda") return default_gpu;
  int number = -1;
  const std::string digits = name.starts_with("cuda:") ? name.substr(5) : "";
  const auto [end, failure] = std::from_chars(digits.data(), digits.data() + digits.size(), number);
  require(failure == std::errc() && end == digits.data() + digits.size() && number >= 0, ErrorCode::invalid_argument,
          "[device] must be cpu, cuda or cuda:N; got '", name, "'");
  return number;
}

}  // namespace

c10::Device find_device(const std::string& name, int default_gpu) {
  if (name == "cpu") return c10::kCPU;
  const int number = gpu_number(name, default_gpu);
  const int count = num_gpus();
  require(number < count, ErrorCode::invalid_argument, "[device] ", name, " must be a GPU of this machine, which has ",
          count == 0 ? "none that LibTorch can use" : concat(count), "; got GPU number ", number);
  return {c10::kCUDA, static_cast<c10::DeviceIndex>(number)};
}

int num_gpus() {
  load_cuda();
  return VirtualGuardImpl(c10::kCUDA).deviceCount();
}

void use_device(c10::Device device) {
  if (device.is_cpu()) return;
  const VirtualGuardImpl guard(device.type());
  guard.setDevice(device);
  guard.exchangeStream(guard.getStreamFromGlobalPool(device));
}

void synchronize(c10::Device device) {
  if (!device.is_cpu()) VirtualGuardImpl(device.type()).synchronizeDevice(device.index());
}

std::int64_t peak_memory_bytes(c10::Device device) {
  if (device.is_cpu()) return 0;
  return c10::getDeviceAllocator(device.type())->getDeviceStats(device.index()).allocated_bytes[kAll].peak;
}

void release_cached_memory(c10::Device device) {
  if (!device.is_cpu()) c10::getDeviceAllocator(device.type())->emptyCache();
}

DeviceMemory device_memory(c10::Device device) {
  if (device.is_cpu()) return {};
  const auto [free, total] = c10::getDeviceAllocator(device.type())->getMemoryInfo(device.index());
  return {.total = static_cast<std::int64_t>(total), .free = static_cast<std::int64_t>(free)};
}

}  // namespace comba
