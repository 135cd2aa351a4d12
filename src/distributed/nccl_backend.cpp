// Of libcomba_cuda.so: see gpu_group.h.
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>

/// NCCL between the processes of a store, each on its GPU. The caller owns what is returned.
extern "C" __attribute__((visibility("default"))) c10d::Backend* comba_make_nccl(c10d::Store* store, int rank, int size,
                                                                                 int gpu, std::int64_t timeout_ms) {
  const auto options = c10d::ProcessGroupNCCL::Options::create();
  options->timeout = std::chrono::milliseconds(timeout_ms);
  auto backend = c10::make_intrusive<c10d::ProcessGroupNCCL>(
      c10::intrusive_ptr<c10d::Store>::unsafe_reclaim_from_nonowning(store), rank, size, options);
  backend->setBoundDeviceId(c10::Device(c10::kCUDA, static_cast<c10::DeviceIndex>(gpu)));
  return backend.release();
}
