#pragma once

#include <c10/core/Device.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

namespace torch::autograd::profiler {
struct ProfilerResult;
}

namespace comba::training {

/// Something that ran on a GPU, all its runs together.
struct KernelTime {
  std::string name;
  double seconds = 0;
  std::int64_t runs = 0;
};

/// Records what LibTorch's operators and a GPU's kernels do, with the profiler of PyTorch. One at a time.
class Profiler {
 public:
  explicit Profiler(c10::Device device);
  ~Profiler();
  Profiler(const Profiler&) = delete;
  Profiler& operator=(const Profiler&) = delete;

  /// Ends the recording.
  void stop();
  /// What ran on the GPU, the longest first. After stop().
  std::vector<KernelTime> kernels() const;
  /// A trace for chrome://tracing or Perfetto. After stop(), once. Throws Error(io).
  void write_trace(const std::filesystem::path& path);

 private:
  c10::Device device_;
  std::unique_ptr<torch::autograd::profiler::ProfilerResult> result_;
};

}  // namespace comba::training
