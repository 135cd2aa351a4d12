#pragma once

#include <cstdint>

/// Copies of contiguous memory by the copy engine of an SM (from compute capability 9.0), which one thread queues for
/// its whole block. What passes through once is marked as the first to leave the L2 cache, so that weights stay there.
namespace comba::bulk_copy {

__device__ inline unsigned shared_address(const void* pointer) {
  return static_cast<unsigned>(__cvta_generic_to_shared(pointer));
}

/// Counts in turns: a turn ends when `arrivals` have come, and all bytes that were announced.
struct ArrivalBarrier {
  unsigned long long bits;

  __device__ void init(unsigned arrivals) {
#if __CUDA_ARCH__ >= 900
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(&bits)), "r"(arrivals) : "memory");
#endif
  }
  /// Behind init() and before the first copy.
  __device__ static void make_visible() {
#if __CUDA_ARCH__ >= 900
    asm volatile("fence.mbarrier_init.release.cluster;\n\tfence.proxy.async.shared::cta;" ::: "memory");
#endif
  }
  /// Bytes of this turn, of which more will be announced.
  __device__ void expect(unsigned bytes) {
#if __CUDA_ARCH__ >= 900
    asm volatile("mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [%0], %1;" ::"r"(shared_address(&bits)), "r"(bytes)
                 : "memory");
#endif
  }
  __device__ void arrive() {
#if __CUDA_ARCH__ >= 900
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(&bits)) : "memory");
#endif
  }
  /// Arrives with the last bytes of this turn.
  __device__ void announce(unsigned bytes) {
#if __CUDA_ARCH__ >= 900
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(&bits)), "r"(bytes)
                 : "memory");
#endif
  }
  /// Until the turn of this parity has ended: 0 for the first.
  __device__ void wait(unsigned parity) {
#if __CUDA_ARCH__ >= 900
    asm volatile(
        "{\n\t"
        ".reg .pred done;\n\t"
        "again:\n\t"
        "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n\t"
        "@!done bra again;\n\t"
        "}" ::"r"(shared_address(&bits)),
        "r"(parity)
        : "memory");
#endif
  }
};

/// What passes through the L2 cache once.
__device__ inline std::uint64_t passing_through() {
  std::uint64_t policy = 0;
#if __CUDA_ARCH__ >= 900
  asm volatile("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
#endif
  return policy;
}

/// From global memory; addresses and bytes are multiples of 16.
__device__ inline void bulk_load(void* to, const void* from, unsigned bytes, ArrivalBarrier& arrived,
                                 std::uint64_t policy) {
#if __CUDA_ARCH__ >= 900
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1], %2, [%3], %4;" ::
          "r"(shared_address(to)),
      "l"(from), "r"(bytes), "r"(shared_address(&arrived.bits)), "l"(policy)
      : "memory");
#endif
}

/// The same of what others will read too.
__device__ inline void bulk_load(void* to, const void* from, unsigned bytes, ArrivalBarrier& arrived) {
#if __CUDA_ARCH__ >= 900
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
                   shared_address(to)),
               "l"(from), "r"(bytes), "r"(shared_address(&arrived.bits))
               : "memory");
#endif
}

/// To global memory, as a group of its own. What other threads wrote to shared memory must have been published before,
/// and a barrier passed.
__device__ inline void bulk_store(void* to, const void* from, unsigned bytes, std::uint64_t policy) {
#if __CUDA_ARCH__ >= 900
  asm volatile("cp.async.bulk.global.shared::cta.bulk_group.L2::cache_hint [%0], [%1], %2, %3;" ::"l"(to),
               "r"(shared_address(from)), "r"(bytes), "l"(policy)
               : "memory");
#endif
}
__device__ inline void commit_stores() {
#if __CUDA_ARCH__ >= 900
  asm volatile("cp.async.bulk.commit_group;" ::: "memory");
#endif
}
/// Until at most kLater groups of this thread still read shared memory.
template <int kLater>
__device__ void wait_until_read() {
#if __CUDA_ARCH__ >= 900
  asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(kLater) : "memory");
#endif
}
__device__ inline void wait_for_stores() {
#if __CUDA_ARCH__ >= 900
  asm volatile("cp.async.bulk.wait_group 0;" ::: "memory");
#endif
}
/// Shows the copy engine what this thread wrote to shared memory.
__device__ inline void publish_shared() {
#if __CUDA_ARCH__ >= 900
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#endif
}

}  // namespace comba::bulk_copy
