#include "training/profiler.h"

#include <torch/csrc/autograd/profiler_kineto.h>

#include <algorithm>
#include <map>
#include <set>

#include "base/message.h"
#include "libtorch/device.h"

namespace comba::training {
namespace fs = std::filesystem;
namespace {

namespace kineto = torch::autograd::profiler;
namespace impl = torch::profiler::impl;

}  // namespace

Profiler::Profiler(c10::Device device) : device_(device) {
  std::set<impl::ActivityType> activities = {impl::ActivityType::CPU};
  if (device.is_cuda()) activities.insert(impl::ActivityType::CUDA);
  const impl::ProfilerConfig config(impl::ProfilerState::KINETO);
  synchronize(device_);
  kineto::prepareProfiler(config, activities);
  kineto::enableProfiler(config, activities, {at::RecordScope::FUNCTION, at::RecordScope::BACKWARD_FUNCTION});
}

Profiler::~Profiler() {
  if (result_ == nullptr) kineto::disableProfiler();
}

void Profiler::stop() {
  synchronize(device_);
  result_ = kineto::disableProfiler();
}

std::vector<KernelTime> Profiler::kernels() const {
  std::map<std::string, KernelTime> by_name;
  for (const kineto::KinetoEvent& event : result_->events()) {
    if (event.deviceType() == c10::kCPU) continue;
    KernelTime& kernel = by_name[event.name()];
    kernel.name = event.name();
    kernel.seconds += static_cast<double>(event.durationNs()) * 1e-9;
    ++kernel.runs;
  }
  std::vector<KernelTime> kernels;
  for (auto& [name, kernel] : by_name) kernels.push_back(std::move(kernel));
  std::ranges::sort(kernels, std::greater(), &KernelTime::seconds);
  return kernels;
}

void Profiler::write_trace(const fs::path& path) {
  std::error_code failure;
  fs::remove(path, failure);
  result_->save(path.string());  // says nothing when it fails
  require(fs::exists(path, failure), ErrorCode::io, "[profile] cannot write ", path.string());
}

}  // namespace comba::training
