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
  bool takes_all_shared =
      false;         ///< of an SM's memory as much as can be is shared, so that other kernels fit beside it
  int priority = 0;  ///< below 0: before kernels of other streams that wait for room
};

template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), const LaunchShape& shape, bool overlaps_previous, cudaStream_t stream,
            const Arguments&... arguments) {
  cudaLaunchAttribute attributes[3] = {};
  unsigned count = 0;
  const auto add = [&](cudaLaunchAttributeID id) -> cudaLaunchAttributeValue& {
    attributes[count].id = id;
    return attributes[count++].val;
  };
  if (shape.priority != 0) add(cudaLaunchAttributePriority).priority = shape.priority;
  if (shape.takes_all_shared) {
    add(cudaLaunchAttributePreferredSharedMemoryCarveout).sharedMemCarveout = cudaSharedmemCarveoutMaxShared;
  }
  if (overlaps_previous) {
    add(cudaLaunchAttributeProgrammaticStreamSerialization).programmaticStreamSerializationAllowed = 1;
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
