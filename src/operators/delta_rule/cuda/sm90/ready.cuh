#pragma once

#include "operators/delta_rule/cuda/sm90/arguments.h"

/// How a kernel hands chunks to the next one while both run: prepare to scan, reverse to gradients.
///
/// prepare: each warp of prepare counts a chunk of a value head up when it has written its part. The counts are cleared
/// before scan may start, which is when every block of prepare runs: so scan, which waits for them, keeps no block of
/// prepare from a multiprocessor. reverse: each slice tells how many chunks of its sequence it has left behind, from
/// the last one on; again cleared before gradients may start.
namespace comba::delta_rule::cuda::sm90 {

constexpr unsigned kWritingWarps = 8;  ///< of prepare, for each chunk

/// A warp has written its part.
__device__ inline void count_written(ChunkMatrices& chunk) {
  __syncwarp();
  if (threadIdx.x % 32 == 0) {
    asm volatile("red.release.gpu.global.add.u32 [%0], 1;" ::"l"(&chunk.written) : "memory");
  }
}

/// Waits until a number that another block counts up is at least `wanted`.
__device__ inline void wait_until_at_least(unsigned wanted, const unsigned& counted) {
  unsigned now;
  do {
    asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(now) : "l"(&counted) : "memory");
  } while (now < wanted);
}

/// Bulk copies that follow see what this thread has waited for.
__device__ inline void let_bulk_copies_see() { asm volatile("fence.proxy.async.global;" ::: "memory"); }

/// Tells how many chunks a slice has left behind; their stores are done.
__device__ inline void tell_progress(unsigned& progress, int chunks) {
  asm volatile("st.release.gpu.global.u32 [%0], %1;" ::"l"(&progress), "r"(chunks) : "memory");
}

}  // namespace comba::delta_rule::cuda::sm90
