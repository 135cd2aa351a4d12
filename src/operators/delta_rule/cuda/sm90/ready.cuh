#pragma once

#include "operators/delta_rule/cuda/sm90/arguments.h"

/// How a kernel hands chunks to the next one while both run: prepare to scan, reverse to gradients.
///
/// prepare: each warp counts a chunk of a value head up when it has written its part. reverse: each slice tells how
/// many chunks of its sequence it has left behind, from the last one on.
///
/// Nobody waits for ever: the second kernel starts when every block of the first has let it
/// (let_next_kernel_start()), so all that it may wait for are running or done. Before that each block of the first has
/// cleared what it is going to count; a fence has put the zeros into the L2 cache, from which the second kernel reads.
/// What is handed over are bulk copies on the reader's side, so the fence between ordinary and bulk accesses is there.
/// Whoever comes after the second kernel waits for the first, too: a block of the second does so at its end.
namespace comba::delta_rule::cuda::sm90 {

constexpr int kWritingWarps = 8;  ///< of prepare, for each chunk

/// A warp has written its part.
__device__ inline void count_written(ChunkMatrices& chunk) {
  __syncwarp();
  if (threadIdx.x % 32 == 0) {
    asm volatile("red.release.gpu.global.add.u32 [%0], 1;" ::"l"(&chunk.written) : "memory");
  }
}

/// Tells how many chunks a slice has left behind; their stores are done.
__device__ inline void tell_progress(unsigned& progress, int chunks) {
  asm volatile("st.release.gpu.global.u32 [%0], %1;" ::"l"(&progress), "r"(chunks) : "memory");
}

/// Waits until `counted`, which another block counts up, is at least `wanted`.
__device__ inline void wait_until_at_least(const unsigned& counted, unsigned wanted) {
  for (;;) {
    unsigned now;
    asm volatile("ld.relaxed.gpu.global.u32 %0, [%1];" : "=r"(now) : "l"(&counted) : "memory");
    if (now >= wanted) return;
    __nanosleep(32);
  }
}

/// Bulk copies that follow, of whichever thread of the block, see what this thread has waited for.
__device__ inline void let_bulk_copies_see() {
  asm volatile("fence.acq_rel.gpu;\n\tfence.proxy.async.global;" ::: "memory");
}

}  // namespace comba::delta_rule::cuda::sm90
