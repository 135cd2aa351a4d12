#pragma once

#include <cuda_runtime_api.h>

#include "base/message.h"

namespace comba {

/// Throws Error with CUDA's own words unless a call succeeded.
inline void check_cuda(cudaError_t status, const char* call) {
  require(status == cudaSuccess, ErrorCode::internal, "[cuda] ", call, " failed: ", cudaGetErrorString(status));
}

}  // namespace comba
