#pragma once

#include <cuda_runtime.h>

#include "runtime/cuda_check.h"

/// Kernels that begin before the one ahead of them has ended (programmatic dependent launch, from compute capability
/// 9.0): each lets the next begin at once, fetches what no kernel of this step writes, such as weights, and only then
/// waits. Every kernel waits, so that the end of one means the end of all before it.
namespace comba::model_step::cuda {

/// The next kernel may begin as soon as each block of this one has come here.
__device__ inline void let_next_begin() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;");
#endif
}

/// Until the kernels before this one have ended and what they wrote is seen. For all threads of a block: without the
/// barrier the assembler moves loads that stand before this behind it.
__device__ inline void wait_for_previous() {
#if __CUDA_ARCH__ >= 900
  __syncthreads();
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

struct LaunchShape {
  dim3 grid, block;
  int shared_bytes = 0;
  unsigned cluster = 1;  ///< blocks of the grid's x that see each other's shared memory
};

template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), const LaunchShape& shape, bool overlaps_previous, cudaStream_t stream,
            const Arguments&... arguments) {
  cudaLaunchAttribute attributes[2] = {};
  unsigned count = 0;
  if (overlaps_previous) {
    attributes[count].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attributes[count++].val.programmaticStreamSerializationAllowed = 1;
  }
  if (shape.cluster > 1) {
    attributes[count].id = cudaLaunchAttributeClusterDimension;
    attributes[count++].val.clusterDim = {.x = shape.cluster, .y = 1, .z = 1};
  }
  cudaLaunchConfig_t config{};
  config.gridDim = shape.grid;
  config.blockDim = shape.block;
  config.dynamicSmemBytes = static_cast<std::size_t>(shape.shared_bytes);
  config.stream = stream;
  config.attrs = attributes;
  config.numAttrs = count;
  check_cuda(cudaLaunchKernelEx(&config, kernel, arguments...), "cudaLaunchKernelEx");
}

}  // namespace comba::model_step::cuda
