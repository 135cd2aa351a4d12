#pragma once

#include <functional>
#include <memory>

namespace comba {

/// Work on a GPU that is recorded once and then started again and again as a whole, without the host's part of it.
class DeviceGraph {
 public:
  virtual ~DeviceGraph() = default;
  /// Records what `work` would start on the current stream, and starts nothing. It must not wait for the GPU. What it
  /// reads and writes must stay where it is; what it allocates is reused by other graphs.
  virtual void record(const std::function<void()>& work) = 0;
  /// Starts the work on the current stream.
  virtual void replay() = 0;
};

/// A CUDA graph on the current device. Throws Error(unsupported) in a build without CUDA.
std::unique_ptr<DeviceGraph> make_device_graph();

}  // namespace comba
