#pragma once

#include "operators/delta_rule/cuda/sm90/bulk_store.cuh"
#include "operators/delta_rule/cuda/sm90/gates.cuh"
#include "operators/delta_rule/cuda/sm90/rest.cuh"
#include "operators/delta_rule/cuda/sm90/ring.cuh"
#include "operators/delta_rule/cuda/sm90/scan_pieces.cuh"
#include "operators/delta_rule/cuda/sm90/scan_shape.cuh"
#include "operators/delta_rule/cuda/sm90/state_memory.cuh"
#include "operators/delta_rule/cuda/sm90/tiles.cuh"

/// Second kernel of the forward pass: from chunk to chunk along a sequence, the state in registers.
///
///     X  = P S              E = diag(beta) (V - diag(feedback) X)        Vn = M E
///     O  = diag(query) (Q - s K) S + (R M) E                             S <- decay S + K^T diag(write) Vn
///
/// (README.md section 8). K, Q and P as they lie in memory; without a full p K takes its place, the factors have b. M,
/// R M and the factors come from prepare.
///
/// Grid: (slices of V, value head, sequence). A block has kGroups slices of kSlice columns, which share the tiles of q,
/// k, p, M and R M. Block: a producer warpgroup that queues the copies; for each slice
///
///     a state warpgroup    X | E | Vn | S | X | E | ...       the serial chain, as short as it gets
///     an output warpgroup    Q S | R M E | store |  ...       beside it, one step behind
///
/// Both read S and E, rounded to 16 bits, in shared memory, transposed: columns of V are rows of the tiles. For the
/// backward pass more warps of the producer's send S and Vn to the workspace as they lie there; if that is all that
/// is wanted, there are no outputs.
/// Shared memory: a ring of 2 to 4 chunks, one of p, S, E and what rounding leaves of Vn.
namespace comba::delta_rule::cuda::sm90 {

template <class Shape>
struct Scan : ScanPieces<Shape> {
  using Pieces = ScanPieces<Shape>;
  using Pieces::count;
  using Pieces::head;
  using Pieces::kK;
  using Pieces::kSlice;
  using Pieces::n;
  using Pieces::release;
  using Pieces::sequence;
  using Pieces::shared;
  using Pieces::store_rows;
  using Pieces::x;
  using typename Pieces::ChunkInputs;
  using typename Pieces::Element;
  using typename Pieces::FromTile;
  using typename Pieces::FromTransposed;
  using typename Pieces::Rows;
  using typename Pieces::Stage;
  using typename Pieces::State;

  __device__ int first_v(int group) const { return (blockIdx.x * Shape::kGroups + group) * kSlice; }
  __device__ bool has_output() const { return x.o != nullptr; }
  __device__ bool saves() const { return !Shape::kFullFeedback && x.states != nullptr; }
  __device__ int state_threads() const { return 2 * kWarpGroup + (saves() ? 32 : 0); }  ///< who write or read S

  /// Where a chunk stands in arrays [slots, HV].
  __device__ std::int64_t index_of(int chunk) const {
    return static_cast<std::int64_t>(sequence.slot + chunk) * x.HV + head;
  }

  __device__ void produce() const {
    const int chunks = sequence.chunks(), key = head / x.group;
    const int bytes =
        sizeof(Stage) + sizeof(ChunkFactors) - (has_output() ? 0 : sizeof(Stage::q) + sizeof(Stage::read));
    RingPlace at, feedback_at;
    wait_for_kernel_before();
    if (!has_output()) let_next_kernel_start();  // of the backward pass: it needs the kernel before this one only
    for (int chunk = 0; chunk < chunks; ++chunk, at.template advance<Shape::kStages>()) {
      Stage& stage = shared.stage[at.stage];
      auto& [factors, full, empty] = shared.control[at.stage];
      wait_barrier(empty, at.phase ^ 1);
      set_barrier_transaction_bytes(full, bytes);
      const int token = sequence.begin + chunk * kChunk;
      const auto& matrices = x.chunks[index_of(chunk)];
      for (int column = 0; column < kK; column += 64) {
        load_box(x.k, full, stage.k + kChunk * column, column, key, token, sequence.batch);
      }
      for (int group = 0; group < Shape::kGroups; ++group) {
        load_box(x.v, full, stage.v[group], first_v(group), head, token, sequence.batch);
      }
      SM90_BULK_COPY_G2S::copy(matrices.inverse, &full, stage.inverse, (has_output() ? 2 : 1) * sizeof(stage.inverse));
      SM90_BULK_COPY_G2S::copy(&matrices.factors, &full, &factors, sizeof(factors));
      for (int column = 0; has_output() && column < kK; column += 64) {
        load_box(x.q, full, stage.q + kChunk * column, column, key, token, sequence.batch);
      }
      if constexpr (Shape::kFullFeedback) {
        Element* const p = shared.feedback[feedback_at.stage].p;
        auto& [p_full, p_empty] = shared.feedback_control[feedback_at.stage];
        wait_barrier(p_empty, feedback_at.phase ^ 1);
        set_barrier_transaction_bytes(p_full, sizeof(shared.feedback[0].p));
        for (int column = 0; column < kK; column += 64) {
          load_box(x.p, p_full, p + kChunk * column, column, x.p_of_value_heads ? head : key, token, sequence.batch);
        }
        feedback_at.template advance<Shape::kFeedbackStages>();
      }
    }
  }

  /// A warp has done with p, or does not need it.
  __device__ void release_feedback(RingPlace& ring) const {
    if constexpr (Shape::kFullFeedback) {
      release(shared.feedback_control[ring.stage].empty);
      ring.template advance<Shape::kFeedbackStages>();
    }
  }

  /// X = P S, queued and waited for; P from its own ring or k.
  __device__ void multiply_feedback(Stage& stage, Element* state, RingPlace& feedback_ring, Rows& rows) const {
    const Tensor s = tile<Element, kSlice, kK>(state);
    if constexpr (Shape::kFullFeedback) {
      wait_barrier(shared.feedback_control[feedback_ring.stage].full, feedback_ring.phase);
      multiply(FromTile{}, tile<Element, kChunk, kK>(shared.feedback[feedback_ring.stage].p), s, rows,
               GMMA::ScaleOut::Zero);
      wait_for_products(rows);
      release_feedback(feedback_ring);
    } else {
      multiply(FromTile{}, tile<Element, kChunk, kK>(stage.k), s, rows, GMMA::ScaleOut::Zero);
      wait_for_products(rows);
    }
  }

  __device__ void advance_state(int group) const {
    auto& slice = shared.slice[group];
    const SliceBarriers barrier(group);
    const int chunks = sequence.chunks();
    State state;
    clear(state);
    load_state<kK, kSlice>(x, x.initial_state, n, head, first_v(group), state);
    RingPlace ring, feedback_ring;
    ChunkInputs inputs;
    const auto load_inputs = [&](int chunk) {
      auto& [factors, full, empty] = shared.control[ring.stage];
      wait_barrier(full, ring.phase);
      inputs.load(shared.stage[ring.stage].v[group], factors, count(chunk));
    };
    if (chunks > 0) load_inputs(0);
    for (int chunk = 0; chunk < chunks; ++chunk) {
      const int place = ring.stage;
      Stage& stage = shared.stage[place];
      if (chunk > 0) barrier_wait(barrier.state_read(), state_threads());
      store_transposed<Element, kK, kSlice>(state, slice.state);
      fence_async();
      barrier_wait(barrier.state_warps(), kWarpGroup);
      Rows rows;
      multiply_feedback(stage, slice.state, feedback_ring, rows);
      barrier_arrive(barrier.state_written(), state_threads());  // not before: this product is the one to wait for

      inputs.to_error(rows);
      if (inputs.present < kChunk) {
        replace_absent_rows<Element, kK>(stage.k, inputs.present);
        fence_async();
      }
      if (chunk > 0) barrier_wait(barrier.write_read(), 2 * kWarpGroup);
      store_transposed<Element, kChunk, kSlice>(rows, slice.error);
      fence_async();
      barrier_wait(barrier.state_warps(), kWarpGroup);
      // E + (M - I) E: the larger part of Vn is never rounded.
      multiply(FromTile{}, tile<Element, kChunk, kChunk>(stage.inverse), tile<Element, kSlice, kChunk>(slice.error),
               rows, GMMA::ScaleOut::One);
#pragma unroll
      for (int i = 0; i < size(state); ++i) state(i) *= inputs.decay;
      wait_for_products(rows);
      barrier_arrive(barrier.write_written(), 2 * kWarpGroup);

      std::uint32_t rest[kSlice / 8];
      store_transposed<Element, kSlice>(
          rows, stage.v[group], [&](int half) { return inputs.write[half]; }, rest);
      store_rest<Element, kSlice>(rest, slice.rest);
      fence_async();
      barrier_wait(barrier.state_warps(), kWarpGroup);
      multiply(FromTransposed{}, transposed<Element, kChunk, kK>(stage.k),
               tile<Element, kSlice, kChunk>(stage.v[group]), state, GMMA::ScaleOut::One);
      multiply(FromTransposed{}, transposed_rows_of_rest<Element, kK>(stage.k),
               tile_of_rest<Element, kSlice>(slice.rest), state, GMMA::ScaleOut::One);
      if (saves()) {
        store_transposed<Element, kChunk, kSlice>(rows, writes_of(place, group));
        fence_async();
        release(shared.writes_kept[place]);
      }
      ring.template advance<Shape::kStages>();
      if (chunk + 1 < chunks) load_inputs(chunk + 1);
      wait_for_products(state);
      release(shared.control[place].empty);
    }
    store_state<kK, kSlice>(x, x.final_state, n, head, first_v(group), state);
  }

  /// Where a stage has Vn of a slice: in a place of its own, or in that of M - I, which the only slice has used.
  __device__ Element* writes_of(int stage, int group) const {
    if constexpr (Shape::kOwnWrites) {
      return shared.writes[stage].slice[group];
    } else {
      return shared.stage[stage].inverse;
    }
  }

  /// Sends the states of a slice to the workspace; one warp.
  __device__ void save_states(int group) const {
    const SliceBarriers barrier(group);
    const int chunks = sequence.chunks();
    const bool stores = threadIdx.x % 32 == 0;
    for (int chunk = 0; chunk < chunks; ++chunk) {
      barrier_wait(barrier.state_written(), state_threads());
      if (stores) {
        queue_tile_rows<kK, kSlice>(shared.slice[group].state, x.states + index_of(chunk) * x.V_rows * kK, x.V_rows,
                                    first_v(group));
        wait_until_read();
      }
      __syncwarp();
      if (chunk + 1 < chunks) barrier_arrive(barrier.state_read(), state_threads());
    }
    if (stores) wait_for_stores();
  }

  /// The same of the writes Vn of all slices; another warp.
  __device__ void save_writes() const {
    const int chunks = sequence.chunks();
    const bool stores = threadIdx.x % 32 == 0;
    RingPlace ring;
    for (int chunk = 0; chunk < chunks; ++chunk, ring.template advance<Shape::kStages>()) {
      wait_barrier(shared.writes_kept[ring.stage], ring.phase);
      if (stores) {
        for (int group = 0; group < Shape::kGroups; ++group) {
          queue_tile_rows<kChunk, kSlice>(writes_of(ring.stage, group), x.writes + index_of(chunk) * x.V_rows * kChunk,
                                          x.V_rows, first_v(group));
        }
        wait_until_read();
      }
      release(shared.control[ring.stage].empty);
    }
    if (stores) wait_for_stores();
  }

  /// Keeps step with the state where no output is wanted.
  __device__ void skip_output(int group) const {
    const SliceBarriers barrier(group);
    const int chunks = sequence.chunks();
    RingPlace ring;
    for (int chunk = 0; chunk < chunks; ++chunk, ring.template advance<Shape::kStages>()) {
      barrier_wait(barrier.state_written(), state_threads());
      if (chunk + 1 < chunks) barrier_arrive(barrier.state_read(), state_threads());
      barrier_wait(barrier.write_written(), 2 * kWarpGroup);
      release(shared.control[ring.stage].empty);
      if (chunk + 1 < chunks) barrier_arrive(barrier.write_read(), 2 * kWarpGroup);
    }
  }

  /// Writes the output.
  __device__ void assist(int group) const {
    if (!has_output()) return skip_output(group);
    auto& slice = shared.slice[group];
    const SliceBarriers barrier(group);
    const int chunks = sequence.chunks();
    const float strength = KeyHead(x, head / x.group).strength;
    const bool corrected_by_p = Shape::kFullFeedback && x.fla;
    RingPlace ring, feedback_ring;
    for (int chunk = 0; chunk < chunks; ++chunk, ring.template advance<Shape::kStages>()) {
      Stage& stage = shared.stage[ring.stage];
      const ChunkFactors& factors = shared.control[ring.stage].factors;
      wait_barrier(shared.control[ring.stage].full, ring.phase);
      barrier_wait(barrier.state_written(), state_threads());
      const Tensor state = tile<Element, kSlice, kK>(slice.state);
      Rows rows;
      if (strength == 0) {
        clear(rows);
        if (corrected_by_p) release_feedback(feedback_ring);
      } else if (corrected_by_p) {
        multiply_feedback(stage, slice.state, feedback_ring, rows);
      } else {
        multiply(FromTile{}, tile<Element, kChunk, kK>(stage.k), state, rows, GMMA::ScaleOut::Zero);
        wait_for_products(rows);
      }
#pragma unroll
      for (int i = 0; i < size(rows); ++i) rows(i) *= -strength;
      multiply(FromTile{}, tile<Element, kChunk, kK>(stage.q), state, rows, GMMA::ScaleOut::One);
      float query[2];
#pragma unroll
      for (int half = 0; half < 2; ++half) query[half] = factors.query[first_row() + 8 * half];
      wait_for_products(rows);
      if (chunk + 1 < chunks) barrier_arrive(barrier.state_read(), state_threads());
#pragma unroll
      for (int half = 0; half < 2; ++half) {
#pragma unroll
        for (int c = 0; c < kSlice / 8; ++c) {
          at(rows, 0, c, half, 0) *= query[half], at(rows, 0, c, half, 1) *= query[half];
        }
      }
      barrier_wait(barrier.write_written(), 2 * kWarpGroup);
      multiply(FromTile{}, tile<Element, kChunk, kChunk>(stage.read), tile<Element, kSlice, kChunk>(slice.error), rows,
               GMMA::ScaleOut::One);
      wait_for_products(rows);
      release(shared.control[ring.stage].empty);
      barrier_wait(barrier.output_warps(), kWarpGroup);  // nobody reads E any more: its place takes the output
      store_rows(rows, slice.error, sequence.begin + chunk * kChunk, count(chunk), first_v(group));
      if (chunk + 1 < chunks) barrier_arrive(barrier.write_read(), 2 * kWarpGroup);
    }
  }
};

template <class Shape>
__global__ __launch_bounds__(Shape::kThreads, 1) void scan(const __grid_constant__ Arguments x) {
  extern __shared__ __align__(1024) std::uint8_t memory[];
  auto& shared = *reinterpret_cast<typename Shape::Shared*>(memory);
  if (threadIdx.x == 0) {
    for (auto& control : shared.control) {
      initialize_barrier(control.full, 1);
      initialize_barrier(control.empty, 2 * Shape::kGroups * kWarpGroup / 32 + (x.states != nullptr));
    }
    for (std::uint64_t& kept : shared.writes_kept) initialize_barrier(kept, Shape::kGroups * kWarpGroup / 32);
    for (int i = 0; i < Shape::kFeedbackStages; ++i) {
      initialize_barrier(shared.feedback_control[i].full, 1);
      initialize_barrier(shared.feedback_control[i].empty, (x.fla ? 2 : 1) * Shape::kGroups * kWarpGroup / 32);
    }
    cutlass::arch::fence_barrier_init();
  }
  __syncthreads();
  const int n = blockIdx.z, head = blockIdx.y;
  share_out<Shape>(Scan<Shape>{{x, shared, sequence(x.sequences, n), head, n}});
}

}  // namespace comba::delta_rule::cuda::sm90
