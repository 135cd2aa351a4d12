#pragma once

#include "operators/delta_rule/cuda/sm90/tiles.cuh"

/// Tiles from shared memory to the workspace, by one thread.
namespace comba::delta_rule::cuda::sm90 {

/// Until what this thread has queued has been read from shared memory, which may then be overwritten.
__device__ inline void wait_until_read() {
  asm volatile("cp.async.bulk.commit_group;\n\tcp.async.bulk.wait_group.read 0;" ::: "memory");
}

/// Until the stores of this thread are done, but for those of its last `kBatches` calls of wait_until_read(): before
/// its kernel ends, or somebody is told of them.
template <int kBatches = 0>
__device__ void wait_for_stores() {
  asm volatile("cp.async.bulk.wait_group %0;" ::"n"(kBatches) : "memory");
}

/// Queues a copy: kRows rows of a tile of kColumns columns go to rows `first` and on of a tile of `rows` rows.
template <int kColumns, int kRows, class Element>
__device__ void queue_tile_rows(const Element* from, std::uint16_t* to, int rows, int first) {
#pragma unroll
  for (int block = 0; block < kColumns / 64; ++block) {
    SM90_BULK_COPY_S2G::copy(from + block * kRows * 64, to + (static_cast<std::int64_t>(block) * rows + first) * 64,
                             kRows * 128);
  }
}

/// A box of a tensor map; returns when it has been read.
__device__ inline void store_box(const CUtensorMap& map, const void* from, int column, int head, int token, int batch) {
  SM90_TMA_STORE_4D::copy(&map, from, column, head, token, batch);
  wait_until_read();
}

}  // namespace comba::delta_rule::cuda::sm90
