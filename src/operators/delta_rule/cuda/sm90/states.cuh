#pragma once

#include "operators/delta_rule/cuda/sm90/backward.h"
#include "operators/delta_rule/cuda/sm90/bulk_store.cuh"
#include "operators/delta_rule/cuda/sm90/scan.cuh"

/// Of the backward pass: the states before each chunk and the writes Vn, run again from the inputs.
///
/// The state warpgroup is that of scan.cuh, so the bits are those of the forward pass. In place of an output warpgroup
/// stands one that sends S and Vn to the workspace as they lie in shared memory.
namespace comba::delta_rule::cuda::sm90 {

template <class Element, int kK, int kSlice, int kGroups>
struct StatesShape : ScanShape<Element, kK, kSlice, kGroups, false> {
  using Base = ScanShape<Element, kK, kSlice, kGroups, false>;
  static constexpr bool kKeepsWrites = true;
  struct Stage {
    Element k[kChunk * kK];
    Element v[kGroups][kChunk * kSlice];  ///< later diag(write) Vn
    Element inverse[kChunk * kChunk];
  };
  struct Slice : Base::Slice {
    Element writes[kSlice * kChunk];
  };
  static constexpr int kFitting =
      (Base::kSharedBytes - kGroups * sizeof(Slice)) / (sizeof(Stage) + sizeof(typename Base::Control));
  static constexpr int kStages = kFitting < 4 ? kFitting : 4;
  struct Shared {
    Slice slice[kGroups];
    Stage stage[kStages];
    typename Base::Control control[kStages];
  };
};

template <class Shape>
struct StateRun : Scan<Shape> {
  using Base = Scan<Shape>;
  using Element = typename Shape::Element;
  static constexpr int kK = Shape::kK, kSlice = Shape::kSlice;

  const BackwardArguments& y;

  __device__ void produce() const {
    const int chunks = this->sequence.chunks(), key = this->head / this->x.group;
    RingPlace at;
    wait_for_kernel_before();
    let_next_kernel_start();  // it needs the kernel before this one only
    for (int chunk = 0; chunk < chunks; ++chunk, at.template advance<Shape::kStages>()) {
      auto& stage = this->shared.stage[at.stage];
      auto& [factors, full, empty] = this->shared.control[at.stage];
      wait_barrier(empty, at.phase ^ 1);
      set_barrier_transaction_bytes(full, sizeof(stage) + sizeof(factors));
      const int token = this->sequence.begin + chunk * kChunk, batch = this->sequence.batch;
      const auto& matrices = this->x.chunks[index_of(chunk)];
      for (int column = 0; column < kK; column += 64) {
        load_box(this->x.k, full, stage.k + kChunk * column, column, key, token, batch);
      }
      for (int group = 0; group < Shape::kGroups; ++group) {
        const int column = (blockIdx.x * Shape::kGroups + group) * kSlice;
        load_box(this->x.v, full, stage.v[group], column, this->head, token, batch);
      }
      SM90_BULK_COPY_G2S::copy(matrices.inverse, &full, stage.inverse, sizeof(stage.inverse));
      SM90_BULK_COPY_G2S::copy(&matrices.factors, &full, &factors, sizeof(factors));
    }
  }

  /// Where a chunk stands in arrays [slots, HV].
  __device__ std::int64_t index_of(int chunk) const {
    return static_cast<std::int64_t>(this->sequence.slot + chunk) * this->x.HV + this->head;
  }

  /// Stores S and Vn.
  __device__ void assist(int group) const {
    auto& slice = this->shared.slice[group];
    const SliceBarriers barrier(group);
    const int first_v = (blockIdx.x * Shape::kGroups + group) * kSlice, chunks = this->sequence.chunks();
    const bool stores = threadIdx.x % kWarpGroup == 0;
    RingPlace ring;
    for (int chunk = 0; chunk < chunks; ++chunk, ring.template advance<Shape::kStages>()) {
      const std::int64_t index = index_of(chunk);
      barrier_wait(barrier.state_written(), 2 * kWarpGroup);
      if (stores) store_tile_rows<kK, kSlice>(slice.state, y.states + index * y.V_rows * kK, y.V_rows, first_v);
      __syncwarp();
      if (chunk + 1 < chunks) barrier_arrive(barrier.state_read(), 2 * kWarpGroup);
      barrier_wait(barrier.write_written(), 2 * kWarpGroup);
      if (stores)
        store_tile_rows<kChunk, kSlice>(slice.writes, y.writes + index * y.V_rows * kChunk, y.V_rows, first_v);
      this->release(this->shared.control[ring.stage].empty);
      if (chunk + 1 < chunks) barrier_arrive(barrier.write_read(), 2 * kWarpGroup);
    }
    if (stores) wait_for_stores();
  }
};

template <class Shape>
__global__ __launch_bounds__(Shape::kThreads, 1) void run_states(const __grid_constant__ BackwardArguments y) {
  extern __shared__ __align__(1024) std::uint8_t memory[];
  auto& shared = *reinterpret_cast<typename Shape::Shared*>(memory);
  if (threadIdx.x == 0) {
    for (auto& control : shared.control) {
      initialize_barrier(control.full, 1);
      initialize_barrier(control.empty, 2 * Shape::kGroups * kWarpGroup / 32);
    }
    cutlass::arch::fence_barrier_init();
  }
  __syncthreads();
  const int n = blockIdx.z, head = blockIdx.y;
  share_out<Shape>(StateRun<Shape>{{y.forward, shared, sequence(y.forward.sequences, n), head, n}, y});
}

}  // namespace comba::delta_rule::cuda::sm90
