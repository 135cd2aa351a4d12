#include "base/message.h"
#include "libtorch/call_scope.h"
#include "libtorch/cuda_library.h"

/// A build without CUDA.
namespace comba {

CUstream_st* current_cuda_stream(c10::Device device) {
  throw Error(ErrorCode::unsupported,
              concat("[comba] tensors on ", device, " need a build with CUDA (-DCOMBA_CUDA=ON); this one has none"));
}

void load_cuda() {
  throw Error(ErrorCode::unsupported, "[device] a GPU needs a build with CUDA (-DCOMBA_CUDA=ON); this one has none");
}

void* cuda_function(const char*) {
  load_cuda();
  return nullptr;
}

}  // namespace comba
