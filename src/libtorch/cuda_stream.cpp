#include <c10/core/Stream.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include "libtorch/call_scope.h"

/// LibTorch tells the current stream through libc10, whatever device it is of. So nothing here is linked with
/// libc10_cuda or libtorch_cuda, whose loading would cost every start of every program (cmake/LibTorch.cmake): whoever
/// brings a tensor on a GPU has loaded them.
namespace comba {

CUstream_st* current_cuda_stream(c10::Device device) {
  const c10::Stream stream = c10::impl::VirtualGuardImpl(device.type()).getStream(device);
  return static_cast<CUstream_st*>(stream.native_handle());
}

}  // namespace comba
