#pragma once

#include "operators/delta_rule/cuda/sm90/arguments.h"

/// How prepare hands chunks to scan while both run.
///
/// Each warp of prepare counts a chunk of a value head up when it has written its part. The counts are cleared before
/// scan may start, which is when every block of prepare runs: so scan, which waits for them, keeps no block of prepare
/// from a multiprocessor.
namespace comba::delta_rule::cuda::sm90 {

constexpr unsigned kWritingWarps = 8;  ///< of prepare, for each chunk

/// A warp has written its part.
__device__ inline void count_written(ChunkMatrices& chunk) {
  __syncwarp();
  if (threadIdx.x % 32 == 0) {
    asm volatile("red.release.gpu.global.add.u32 [%0], 1;" ::"l"(&chunk.written) : "memory");
  }
}

/// Waits until all of a chunk is written; bulk copies that follow see it.
__device__ inline void wait_until_written(const ChunkMatrices& chunk) {
  unsigned warps;
  do {
    asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(warps) : "l"(&chunk.written) : "memory");
  } while (warps < kWritingWarps);
  asm volatile("fence.proxy.async.global;" ::: "memory");
}

}  // namespace comba::delta_rule::cuda::sm90
