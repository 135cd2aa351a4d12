#include "libtorch/call_scope.h"

#include "libtorch/threads.h"

namespace comba {

CallScope::CallScope(c10::Device device) : device_(device) {
  if (device.is_cuda()) {
    guard_.reset_device(device);
    execution_ = {.device = DeviceType::cuda, .stream = current_cuda_stream(device)};
  } else {
    use_torch_threads_once();
  }
}

Workspace CallScope::workspace(int64_t bytes) {
  // LibTorch aligns memory of the CPU to 64 bytes, of a GPU to 512; the operator asks for 64.
  scratch_ = at::empty({bytes}, at::TensorOptions(device_).dtype(at::kByte));
  return {scratch_.mutable_data_ptr(), bytes};
}

}  // namespace comba
