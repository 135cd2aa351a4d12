#pragma once

#include "operators/delta_rule/cuda/sm90/fused_shape.cuh"
#include "operators/delta_rule/cuda/sm90/prepare.cuh"
#include "operators/delta_rule/cuda/sm90/rest.cuh"
#include "operators/delta_rule/cuda/sm90/ring.cuh"
#include "operators/delta_rule/cuda/sm90/scan_pieces.cuh"
#include "operators/delta_rule/cuda/sm90/state_memory.cuh"

/// The forward pass in one kernel, where all of V is in one block and there are blocks for every multiprocessor: what
/// prepare does of a chunk is done in the block, ahead of the state, and goes no way through memory. Operations and
/// their order are those of prepare.cuh and scan.cuh, so are the bits.
///
/// Grid: (value head, sequence). Block: a producer warpgroup that queues the copies, and for each half of V
///
///     a state warpgroup    X | E | Vn | S | X | E | ...                      the chain of scan
///     a helper             its part of chunk c + 1, the output of chunk c
///
/// where the helpers, between which the work of prepare is shared out, go
///
///     first     norms, P K^T of c + 1  =  A | M | write M - I  |  Q S | R M E | store (of c)
///     second    gates, norms of c + 1  =  factors  |  Q S | R M E | store (of c)  |  R of c + 1 | R M
///
/// The state needs the factors of a chunk to begin with it, M in the middle; R M is the output's. So one place is
/// enough for M - I and for R M, and for the gates, which the second helper resolves after it has seen M of the chunk
/// before. Norms have two places, as the first helper may come to the next chunk before the second has left this one.
///
/// Who waits for whom (all else as in scan.cuh):
///
///     full, empty         a stage of q and k: empty once the state and the output have done with both
///     factored            the factors of a stage; they are free again when the stage is
///     values_control      a stage of v; the state alone reads it
///     inverse_control     full: M - I is written, and M is left to the second helper; empty: Vn is there in both
///     halves read_control        full: R M is written; empty: it is multiplied by E in both halves kHelpersMeet, =
///     gates and norms of a chunk are known, M of the chunk before has been read
///
/// Rows of absent tokens may be replaced in k (rest.cuh) while the second helper multiplies by them: what comes of
/// absent rows and columns is replaced anyway.
namespace comba::delta_rule::cuda::sm90 {

/// The helpers' barrier, beside those of the slices.
constexpr int kHelpersMeet = 13;

template <class Shape>
struct Fused : ScanPieces<Shape> {
  using Base = ScanPieces<Shape>;
  using Base::count;
  using Base::head;
  using Base::kK;
  using Base::kSlice;
  using Base::n;
  using Base::release;
  using Base::sequence;
  using Base::shared;
  using Base::store_rows;
  using Base::x;
  using typename Base::ChunkInputs;
  using typename Base::Element;
  using typename Base::FromTile;
  using typename Base::FromTransposed;
  using typename Base::Rows;
  using typename Base::Stage;
  using typename Base::State;
  using Pairs = Accumulators<kChunk, kChunk>;  ///< of tokens
  using PairProduct = Product<Element, kChunk, GMMA::Major::K>;
  static constexpr int kBoth = 2 * kWarpGroup;

  __device__ int first_v(int group) const { return group * kSlice; }
  __device__ Chunk chunk_at(int chunk) const { return {sequence.batch, sequence.begin + chunk * kChunk, count(chunk)}; }

  __device__ void produce() const {
    const int chunks = sequence.chunks(), key = head / x.group;
    RingPlace now, values_at;
    for (int chunk = 0; chunk < chunks; ++chunk) {
      const int token = sequence.begin + chunk * kChunk;
      Stage& stage = shared.stage[now.stage];
      auto& control = shared.control[now.stage];
      wait_barrier(control.empty, now.phase ^ 1);
      set_barrier_transaction_bytes(control.full, sizeof(Stage));
      for (int column = 0; column < kK; column += 64) {
        load_box(x.k, control.full, stage.k + kChunk * column, column, key, token, sequence.batch);
        load_box(x.q, control.full, stage.q + kChunk * column, column, key, token, sequence.batch);
      }
      now.template advance<Shape::kStages>();

      auto& values = shared.values[values_at.stage];
      auto& [full, empty] = shared.values_control[values_at.stage];
      wait_barrier(empty, values_at.phase ^ 1);
      set_barrier_transaction_bytes(full, sizeof(values));
      for (int group = 0; group < Shape::kGroups; ++group) {
        load_box(x.v, full, values.slice[group], first_v(group), head, token, sequence.batch);
      }
      values_at.template advance<Shape::kValueStages>();
    }
  }

  __device__ void advance_state(int group) const {
    auto& slice = shared.slice[group];
    const SliceBarriers barrier(group);
    const int chunks = sequence.chunks();
    State state;
    clear(state);
    load_state<kK, kSlice>(x, x.initial_state, n, head, first_v(group), state);
    RingPlace now, values_at;
    for (int chunk = 0; chunk < chunks; ++chunk) {
      Stage& stage = shared.stage[now.stage];
      auto& control = shared.control[now.stage];
      Element* const values = shared.values[values_at.stage].slice[group];
      auto& [values_full, values_empty] = shared.values_control[values_at.stage];
      if (chunk > 0) barrier_wait(barrier.state_read(), kBoth);
      store_transposed<Element, kK, kSlice>(state, slice.state);
      fence_async();
      barrier_wait(barrier.state_warps(), kWarpGroup);
      wait_barrier(control.full, now.phase);
      Rows rows;
      multiply(FromTile{}, tile<Element, kChunk, kK>(stage.k), tile<Element, kSlice, kK>(slice.state), rows,
               GMMA::ScaleOut::Zero);
      wait_barrier(control.factored, now.phase);
      wait_barrier(values_full, values_at.phase);
      ChunkInputs inputs;
      inputs.load(values, control.factors, count(chunk));
      wait_for_products(rows);
      barrier_arrive(barrier.state_written(), kBoth);  // not before: this product is the one to wait for

      inputs.to_error(rows);
      if (inputs.present < kChunk) {
        replace_absent_rows<Element, kK>(stage.k, inputs.present);
        fence_async();
      }
      if (chunk > 0) barrier_wait(barrier.write_read(), kBoth);
      store_transposed<Element, kChunk, kSlice>(rows, slice.error);
      fence_async();
      barrier_wait(barrier.state_warps(), kWarpGroup);
      wait_barrier(shared.inverse_control.full, chunk & 1);
      // E + (M - I) E: the larger part of Vn is never rounded.
      multiply(FromTile{}, tile<Element, kChunk, kChunk>(shared.inverse), tile<Element, kSlice, kChunk>(slice.error),
               rows, GMMA::ScaleOut::One);
#pragma unroll
      for (int i = 0; i < size(state); ++i) state(i) *= inputs.decay;
      wait_for_products(rows);
      release(shared.inverse_control.empty);
      barrier_arrive(barrier.write_written(), kBoth);

      std::uint32_t rest[kSlice / 8];
      store_transposed<Element, kSlice>(
          rows, values, [&](int half) { return inputs.write[half]; }, rest);
      store_rest<Element, kSlice>(rest, shared.rest, group);
      fence_async();
      barrier_wait(barrier.state_warps(), kWarpGroup);
      multiply(FromTransposed{}, transposed<Element, kChunk, kK>(stage.k), tile<Element, kSlice, kChunk>(values), state,
               GMMA::ScaleOut::One);
      multiply(FromTransposed{}, transposed_rows_of_rest<Element, kK>(stage.k),
               tile_of_rest<Element, kSlice>(shared.rest, group), state, GMMA::ScaleOut::One);
      wait_for_products(state);
      release(control.empty);
      release(values_empty);
      now.template advance<Shape::kStages>();
      values_at.template advance<Shape::kValueStages>();
    }
    store_state<kK, kSlice>(x, x.final_state, n, head, first_v(group), state);
  }

  /// A helper: its part of every chunk and, one chunk behind, the output of its half of V.
  __device__ void assist(int group) const {
    const KeyHead key(x, head / x.group);
    const int chunks = sequence.chunks();
    RawGates raw;
    const int token = group == 0 ? kChunk : static_cast<int>(threadIdx.x) - Shape::kFirstHelper - kWarpGroup;
    if (group == 1 && chunks > 0) raw.load(x, chunk_at(0), head, token);
    RingPlace ahead, now;
    for (int chunk = -1; chunk < chunks; ++chunk) {
      const int next = chunk + 1;
      if (next < chunks) {
        wait_barrier(shared.control[ahead.stage].full, ahead.phase);
        if (group == 0) {
          make_inverse(next, ahead.stage, key);
        } else {
          make_factors(next, ahead.stage, key, token, raw);
          if (next + 1 < chunks) raw.load(x, chunk_at(next + 1), head, token);
        }
      }
      if (chunk >= 0) {
        write_output(group, chunk, now, key);
        now.template advance<Shape::kStages>();
      }
      if (group == 1 && next < chunks) make_read(next, ahead.stage, key);
      ahead.template advance<Shape::kStages>();
    }
  }

  /// The norms of q of half of the rows.
  __device__ void make_query_norms(int group, const Chunk& chunk, const Stage& stage, const KeyHead& key,
                                   float* norms) const {
    const int row = group * (kChunk / 2) + static_cast<int>(threadIdx.x) % kWarpGroup / 4;
    row_norm<Element, kK>(chunk, row, stage.q, stage.k, key.strength, x.l2norm, x.l2norm_eps, norms);
  }

  /// A, M, and M - I for the state.
  __device__ void make_inverse(int number, int place, const KeyHead& key) const {
    const Chunk chunk = chunk_at(number);
    Stage& stage = shared.stage[place];
    auto& norms = shared.norms[number & 1];
    const Tensor k = tile<Element, kChunk, kK>(stage.k);
    Pairs products;
    multiply(PairProduct{}, k, k, products, GMMA::ScaleOut::Zero);
    make_query_norms(0, chunk, stage, key, norms.q);
    wait_for_products(products);
    norms_of_diagonal(chunk, products, x.l2norm, x.l2norm_eps, norms.k);
    clear_absent_rows(chunk, products);
    barrier_wait(kHelpersMeet, kBoth);
    float factor[2];
    LogDecay to[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int i = first_row() + 8 * half;
      factor[half] = shared.gates.beta[i] * key.b * norms.k[i], to[half] = shared.gates.G0[i];
    }
    const Triangle a(products, false, factor, to, shared.gates, norms.k, shared.column_factor[warp_of_group()]);
    a.store(shared.solved);
    const int warps = SliceBarriers(0).output_warps();
    barrier_wait(warps, kWarpGroup);
    invert(shared.solved, warps);
    wait_barrier(shared.inverse_control.empty, (number & 1) ^ 1);
    write_inverse(shared.solved, shared.inverse);
    fence_async();
    release(shared.inverse_control.full);
  }

  /// Gates, and the factors of rows.
  __device__ void make_factors(int number, int place, const KeyHead& key, int token, const RawGates& raw) const {
    const Chunk chunk = chunk_at(number);
    auto& norms = shared.norms[number & 1];
    auto& control = shared.control[place];
    raw.resolve(x, chunk, token, shared.gates, shared.first_half,
                [] { barrier_wait(SliceBarriers(1).output_warps(), kWarpGroup); });
    make_query_norms(1, chunk, shared.stage[place], key, norms.q);
    barrier_wait(kHelpersMeet, kBoth);
    write_factors(x, chunk, key, shared.gates, norms.q, norms.k, norms.k, token, control.factors);
    release(control.factored);
  }

  /// R, and R M for the output.
  __device__ void make_read(int number, int place, const KeyHead& key) const {
    const Chunk chunk = chunk_at(number);
    Stage& stage = shared.stage[place];
    const auto& norms = shared.norms[number & 1];
    const Tensor k = tile<Element, kChunk, kK>(stage.k);
    Pairs products;
    if (key.strength == 0) {
      clear(products);
    } else {
      multiply(PairProduct{}, k, k, products, GMMA::ScaleOut::Zero);
      wait_for_products(products);
#pragma unroll
      for (int i = 0; i < size(products); ++i) products(i) = -key.strength * products(i);
    }
    multiply(PairProduct{}, tile<Element, kChunk, kK>(stage.q), k, products, GMMA::ScaleOut::One);
    float factor[2];
    LogDecay to[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int i = first_row() + 8 * half;
      factor[half] = x.scale * norms.q[i], to[half] = shared.gates.G[i];
    }
    wait_for_products(products);
    clear_absent_rows(chunk, products);
    Triangle r(products, true, factor, to, shared.gates, norms.k, shared.column_factor[4 + warp_of_group()]);
    wait_barrier(shared.inverse_control.full, number & 1);
    wait_barrier(shared.read_control.empty, (number & 1) ^ 1);
    r.multiply(shared.solved, shared.read);
    fence_async();
    release(shared.read_control.full);
  }

  __device__ void write_output(int group, int chunk, const RingPlace& place, const KeyHead& key) const {
    auto& slice = shared.slice[group];
    const SliceBarriers barrier(group);
    const bool is_last = chunk + 1 == sequence.chunks();
    Stage& stage = shared.stage[place.stage];
    auto& control = shared.control[place.stage];
    const Tensor state = tile<Element, kSlice, kK>(slice.state);
    wait_barrier(control.factored, place.phase);
    barrier_wait(barrier.state_written(), kBoth);
    Rows rows;
    if (key.strength == 0) {
      clear(rows);
    } else {
      multiply(FromTile{}, tile<Element, kChunk, kK>(stage.k), state, rows, GMMA::ScaleOut::Zero);
      wait_for_products(rows);
    }
#pragma unroll
    for (int i = 0; i < size(rows); ++i) rows(i) *= -key.strength;
    multiply(FromTile{}, tile<Element, kChunk, kK>(stage.q), state, rows, GMMA::ScaleOut::One);
    float query[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) query[half] = control.factors.query[first_row() + 8 * half];
    wait_for_products(rows);
    release(control.empty);
    if (!is_last) barrier_arrive(barrier.state_read(), kBoth);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
#pragma unroll
      for (int c = 0; c < kSlice / 8; ++c) {
        at(rows, 0, c, half, 0) *= query[half], at(rows, 0, c, half, 1) *= query[half];
      }
    }
    barrier_wait(barrier.write_written(), kBoth);
    wait_barrier(shared.read_control.full, chunk & 1);
    multiply(FromTile{}, tile<Element, kChunk, kChunk>(shared.read), tile<Element, kSlice, kChunk>(slice.error), rows,
             GMMA::ScaleOut::One);
    wait_for_products(rows);
    release(shared.read_control.empty);
    barrier_wait(barrier.output_warps(), kWarpGroup);  // nobody reads E any more: its place takes the output
    store_rows(rows, slice.error, sequence.begin + chunk * kChunk, count(chunk), first_v(group));
    if (!is_last) barrier_arrive(barrier.write_read(), kBoth);
  }
};

template <class Shape>
__global__ __launch_bounds__(Shape::kThreads, 1) void fused(const __grid_constant__ Arguments x) {
  extern __shared__ __align__(1024) std::uint8_t memory[];
  auto& shared = *reinterpret_cast<typename Shape::Shared*>(memory);
  constexpr int kWarps = kWarpGroup / 32;
  if (threadIdx.x == 0) {
    for (auto& control : shared.control) {
      initialize_barrier(control.full, 1);
      initialize_barrier(control.empty, 2 * Shape::kGroups * kWarps);
      initialize_barrier(control.factored, kWarps);
    }
    for (auto& values : shared.values_control) {
      initialize_barrier(values.full, 1);
      initialize_barrier(values.empty, Shape::kGroups * kWarps);
    }
    for (auto* control : {&shared.inverse_control, &shared.read_control}) {
      initialize_barrier(control->full, kWarps);
      initialize_barrier(control->empty, Shape::kGroups * kWarps);
    }
    cutlass::arch::fence_barrier_init();
  }
  __syncthreads();
  const int n = blockIdx.y, head = blockIdx.x;
  share_out<Shape>(Fused<Shape>{{x, shared, sequence(x.sequences, n), head, n}});
}

}  // namespace comba::delta_rule::cuda::sm90
