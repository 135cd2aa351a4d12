#pragma once

/// How reverse hands chunks to gradients while both run: each slice of reverse tells how many chunks of its sequence it
/// has left behind, from the last one on, and gradients, which begins with these, waits for those that it needs.
///
/// Nobody waits for ever: a block of gradients can start only when every block of reverse has let it
/// (let_next_kernel_start()), which a block does once it runs, so whoever is waited for already has its place on a
/// multiprocessor, or is done. And reverse itself waits for nothing that comes after it on its stream, so it ends
/// however many multiprocessors waiting blocks hold, and whatever other streams do.
///
/// Before it lets the next kernel start a block of reverse has cleared its count; a fence has put the zero into the L2
/// cache, from which gradients reads. What is handed over are bulk copies, read by bulk copies: fences between these
/// and ordinary accesses are on the reader's side. Whoever comes after gradients waits for reverse, too: a block of
/// gradients does so at its end.
namespace comba::delta_rule::cuda::sm90 {

/// Tells how many chunks a slice has left behind; their stores are done.
__device__ inline void tell_progress(unsigned& progress, int chunks) {
  asm volatile("st.release.gpu.global.u32 [%0], %1;" ::"l"(&progress), "r"(chunks) : "memory");
}

/// Waits until another block has told of at least `chunks`.
__device__ inline void wait_for_progress(const unsigned& progress, unsigned chunks) {
  for (;;) {
    unsigned now;
    asm volatile("ld.relaxed.gpu.global.u32 %0, [%1];" : "=r"(now) : "l"(&progress) : "memory");
    if (now >= chunks) return;
    __nanosleep(32);
  }
}

/// Bulk copies that follow, of whichever thread of the block, see what this thread has waited for.
__device__ inline void let_bulk_copies_see() {
  asm volatile("fence.acq_rel.gpu;\n\tfence.proxy.async.global;" ::: "memory");
}

}  // namespace comba::delta_rule::cuda::sm90
