// Of libcomba_cuda.so: see device_graph.h.
#include <ATen/cuda/CUDAContextLight.h>
#include <ATen/cuda/CUDAGraph.h>

#include "libtorch/device_graph.h"

namespace comba {
namespace {

class CudaGraph : public DeviceGraph {
 public:
  void record(const std::function<void()>& work) override {
    // Graphs are started one after the other, and nothing that one allocates is read by the next.
    static const at::cuda::MempoolId_t memory = at::cuda::graph_pool_handle();
    graph_.capture_begin(memory);
    try {
      work();
    } catch (...) {
      try {
        graph_.capture_end();  // ends the recording, which is lost
      } catch (const std::exception&) {
      }
      throw;
    }
    graph_.capture_end();
  }

  void replay() override { graph_.replay(); }

 private:
  at::cuda::CUDAGraph graph_;
};

}  // namespace
}  // namespace comba

extern "C" __attribute__((visibility("default"))) comba::DeviceGraph* comba_make_device_graph() {
  return new comba::CudaGraph;
}

/// What the driver calls a GPU; lives as long as the process.
extern "C" __attribute__((visibility("default"))) const char* comba_gpu_name(int device) {
  return at::cuda::getDeviceProperties(static_cast<c10::DeviceIndex>(device))->name;
}
