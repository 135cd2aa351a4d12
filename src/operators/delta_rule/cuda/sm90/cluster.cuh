#pragma once

#include "operators/delta_rule/cuda/sm90/tiles.cuh"

/// Blocks of a cluster that read the same tiles: each queues its share of the copies, and every one receives them all.
namespace comba::delta_rule::cuda::sm90 {

struct Cluster {
  int size = static_cast<int>(cluster_shape().x), rank = static_cast<int>(block_rank_in_cluster());

  __device__ void wait_for_all() const {
    if (size == 1) return __syncthreads();
    cluster_arrive_relaxed();
    cluster_wait();
  }

  /// Tells `barrier` of every block that a thread arrived: it has read what the next copy overwrites.
  __device__ void arrive(std::uint64_t& barrier) const {
    for (int block = 0; block < size; ++block) {
      if (block == rank) {
        arrive_barrier(barrier);
      } else {  // relaxed: a release of this scope would flush the caches
        asm volatile(
            "{\n"
            ".reg .b32 other;\n"
            "mapa.shared::cluster.u32 other, %0, %1;\n"
            "mbarrier.arrive.relaxed.cluster.shared::cluster.b64 _, [other];\n"
            "}" ::"r"(cast_smem_ptr_to_uint(&barrier)),
            "r"(block)
            : "memory");
      }
    }
  }

  /// Copies number `number` of those that every block receives: is it this block that queues it?
  __device__ bool queues(int number) const { return number % size == rank; }

  __device__ void load_box(const CUtensorMap& map, std::uint64_t& arrived, void* to, int column, int head, int token,
                           int batch) const {
    if (size == 1) return sm90::load_box(map, arrived, to, column, head, token, batch);
    SM90_TMA_LOAD_MULTICAST_4D::copy(&map, &arrived, everyone(),
                                     static_cast<std::uint64_t>(TMA::CacheHintSm90::EVICT_NORMAL), to, column, head,
                                     token, batch);
  }

  __device__ void load_bytes(const void* from, std::uint64_t& arrived, void* to, int bytes) const {
    if (size == 1) return SM90_BULK_COPY_G2S::copy(from, &arrived, to, bytes);
    asm volatile(
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [%0], [%1], %2, [%3], "
        "%4;" ::"r"(cast_smem_ptr_to_uint(to)),
        "l"(from), "r"(bytes), "r"(cast_smem_ptr_to_uint(&arrived)), "h"(everyone())
        : "memory");
  }

 private:
  __device__ std::uint16_t everyone() const { return static_cast<std::uint16_t>((1 << size) - 1); }
};

}  // namespace comba::delta_rule::cuda::sm90
