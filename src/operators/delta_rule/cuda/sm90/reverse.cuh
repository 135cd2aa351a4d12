#pragma once

#include "operators/delta_rule/cuda/sm90/backward.h"
#include "operators/delta_rule/cuda/sm90/bulk_store.cuh"
#include "operators/delta_rule/cuda/sm90/ready.cuh"
#include "operators/delta_rule/cuda/sm90/reverse_shape.cuh"
#include "operators/delta_rule/cuda/sm90/scan.cuh"

/// Of the backward pass: from chunk to chunk against the sequence, the gradient of the state in registers.
///
///     dW  = diag(write) K dS+                 dE = M^T dW + (R M)^T dO
///     dS  = decay dS+ + Q^T diag(query) dO - K^T (diag(feedback beta) dE + s diag(query) dO)
///
/// (README.md section 9.) dS+ and dE go to the workspace. Nothing here needs the states, so this kernel runs beside the
/// one that brings them back.
/// fp16: what K^T and Q^T multiply is as small as their rows are long, too small for fp16 where these are 1e4 long. It
/// and the sums in registers are kept in a unit of the chunk, a power of two.
///
/// Grid: (slices of V, value head, sequence), blocks as in scan.cuh: a producer warpgroup; for each slice a state
/// warpgroup, whose chain is dS+ | dW | dE | dS+ | ..., and an assistant warpgroup that rounds diag(query) dO ahead
/// of time and stores what it leaves behind.
/// Shared memory: a ring of 2 to 4 chunks, one of q, which is needed last, and dS+, dW, dE.
namespace comba::delta_rule::cuda::sm90 {

template <class Shape>
struct Reverse {
  using Element = typename Shape::Element;
  using Stage = typename Shape::Stage;
  using Shared = typename Shape::Shared;
  static constexpr int kK = Shape::kK, kSlice = Shape::kSlice;
  static constexpr int kRowBytes = 2 * kSlice;  ///< of d_o
  using FromTile = Product<Element, kSlice, GMMA::Major::K>;
  using FromTransposed = Product<Element, kSlice, GMMA::Major::MN>;
  using BothTransposed = Product<Element, kSlice, GMMA::Major::MN, GMMA::Major::MN>;
  using State = Accumulators<kK, kSlice>;
  using Rows = Accumulators<kChunk, kSlice>;

  const BackwardArguments& y;
  const Arguments& x;
  Shared& shared;
  const Sequence sequence;
  const int head, n;  ///< value head, sequence

  __device__ int count(int chunk) const { return min(kChunk, sequence.end - sequence.begin - chunk * kChunk); }
  __device__ int first_v(int group) const { return (blockIdx.x * Shape::kGroups + group) * kSlice; }

  __device__ bool is_followed() const { return kSlice == kFollowedColumns && y.progress; }
  __device__ unsigned& progress() const {
    return y.progress[(static_cast<std::int64_t>(n) * x.HV + head) * gridDim.x + blockIdx.x];
  }

  /// Where a chunk stands in arrays [slots, HV].
  __device__ std::int64_t index_of(int chunk) const {
    return static_cast<std::int64_t>(sequence.slot + chunk) * x.HV + head;
  }

  __device__ void produce() const {
    const int key = head / x.group;
    RingPlace at, query;
    for (int chunk = sequence.chunks() - 1; chunk >= 0; --chunk) {
      Stage& stage = shared.stage[at.stage];
      auto& [factors, full, empty, scaled] = shared.control[at.stage];
      wait_barrier(empty, at.phase ^ 1);
      set_barrier_transaction_bytes(full, sizeof(stage) - sizeof(stage.scaled) + sizeof(factors));
      const int token = sequence.begin + chunk * kChunk;
      const auto& matrices = x.chunks[index_of(chunk)];
      for (int column = 0; column < kK; column += 64) {
        load_box(x.k, full, stage.k + kChunk * column, column, key, token, sequence.batch);
      }
      for (int group = 0; group < Shape::kGroups; ++group) {
        load_box(y.d_o_slice, full, stage.d_o[group], first_v(group), head, token, sequence.batch);
      }
      SM90_BULK_COPY_G2S::copy(matrices.inverse, &full, stage.inverse, 2 * sizeof(stage.inverse));
      SM90_BULK_COPY_G2S::copy(&matrices.factors, &full, &factors, sizeof(factors));
      auto& [query_full, query_empty] = shared.query_control[query.stage];
      Element* const q = shared.queries[query.stage].q;
      wait_barrier(query_empty, query.phase ^ 1);
      set_barrier_transaction_bytes(query_full, sizeof(shared.queries[0]));
      for (int column = 0; column < kK; column += 64) {
        load_box(x.q, query_full, q + kChunk * column, column, key, token, sequence.batch);
      }
      at.template advance<Shape::kStages>();
      query.template advance<Shape::kQueryStages>();
    }
  }

  /// A warp has done with what a barrier guards.
  __device__ static void release(std::uint64_t& empty) {
    __syncwarp();
    if (threadIdx.x % 32 == 0) arrive_barrier(empty);
  }

  /// Rows of absent tokens, which belong to the next sequence: zero times whatever they hold must be zero.
  template <int kColumns>
  __device__ static void clear_rows(Element* tile, int first) {
    constexpr int kPieces = kColumns / 8, kBlock = kColumns < 64 ? kPieces : 8;  // of 16 bytes, in a row of a block
    for (int i = first * kPieces + threadIdx.x % kWarpGroup; i < kChunk * kPieces; i += kWarpGroup) {
      const int row = i / kPieces, piece = i % kPieces;
      clear_piece(tile + ((piece / kBlock * kChunk + row) * kBlock + piece % kBlock) * 8);
    }
  }

  /// At least 1; the largest factor of a row, times the unit, is below 1 if the unit is not 1. For a warp.
  static __device__ float unit_of(const ChunkFactors& factors, float strength) {
    if constexpr (!std::is_same_v<Element, cutlass::half_t>) return 1;
    float largest = 0;
    for (int i = threadIdx.x % 32; i < kChunk; i += 32) {
      largest = fmaxf(largest, fmaxf(fabsf(factors.feedback[i]), fmaxf(1, fabsf(strength)) * factors.query[i]));
    }
    // Floats that are not negative are ordered as their bits are.
    const unsigned exponent = __reduce_max_sync(~0u, __float_as_uint(largest)) >> 23;
    return __uint_as_float((253 - min(max(exponent, 64u), 126u)) << 23);
  }

  /// What a chunk brings to a thread, besides its tiles.
  struct ChunkInputs {
    int present;  ///< tokens
    float write[2], decay;
    float unit, error[2], correction[2];  ///< factors times the unit
    std::uint32_t values[2][kSlice / 8];  ///< pairs of d_o where the accumulators of a chunk's rows are

    __device__ void load(const Element* d_o, const ChunkFactors& factors, int count, float strength) {
      present = count;
      decay = factors.decay;
      unit = unit_of(factors, strength);
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int row = first_row() + 8 * half;
        write[half] = factors.write[row];
        error[half] = unit * factors.feedback[row] * factors.beta[row];
        correction[half] = unit * strength * factors.query[row];
      }
      load_pairs(d_o, values);
    }
  };

  __device__ static void load_pairs(const Element* d_o, std::uint32_t (&values)[2][kSlice / 8]) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int begin = (first_row() + 8 * half) * kRowBytes, exchange = begin >> 3 & (kRowBytes - 16);
      const char* const from = reinterpret_cast<const char*>(d_o) + begin + 2 * first_column();
#pragma unroll
      for (int c = 0; c < kSlice / 8; ++c) {
        values[half][c] = *reinterpret_cast<const std::uint32_t*>(from + (c * 16 ^ exchange));
      }
    }
  }

  static __device__ float element(std::uint32_t pair, int side) {
    return static_cast<float>(reinterpret_cast<const Element*>(&pair)[side]);
  }

  __device__ void advance_state(int group) const {
    auto& slice = shared.slice[group];
    const SliceBarriers barrier(group);
    const int chunks = sequence.chunks();
    const float strength = KeyHead(x, head / x.group).strength;
    State state;
    float unit = 1;  // of the state
    clear(state);
    load_state<kK, kSlice>(x, y.d_final_state, n, head, first_v(group), state);
    RingPlace ring, query;
    ChunkInputs inputs;
    const auto load_inputs = [&](int chunk) {
      auto& control = shared.control[ring.stage];
      wait_barrier(control.full, ring.phase);
      inputs.load(shared.stage[ring.stage].d_o[group], control.factors, count(chunk), strength);
    };
    if (chunks > 0) load_inputs(chunks - 1);
    for (int chunk = chunks - 1; chunk >= 0; --chunk) {
      const bool first = chunk == chunks - 1;
      Stage& stage = shared.stage[ring.stage];
      auto& control = shared.control[ring.stage];
      auto& query_control = shared.query_control[query.stage];
      Element* const q = shared.queries[query.stage].q;
      if (inputs.present < kChunk) {
        wait_barrier(query_control.full, query.phase);
        wait_barrier(control.scaled, ring.phase);  // the assistant has read d_o
        clear_rows<kK>(stage.k, inputs.present);
        clear_rows<kK>(q, inputs.present);
        clear_rows<kSlice>(stage.d_o[group], inputs.present);
        fence_async();
        barrier_wait(barrier.state_warps(), kWarpGroup);
      }
      Rows rows;
      if (!first) barrier_wait(barrier.state_read(), 2 * kWarpGroup);
      store_transposed<Element, kK, kSlice>(state, slice.state, [&](int) { return 1 / unit; });
      fence_async();
      barrier_wait(barrier.state_warps(), kWarpGroup);
      multiply(FromTile{}, tile<Element, kChunk, kK>(stage.k), tile<Element, kSlice, kK>(slice.state), rows,
               GMMA::ScaleOut::Zero);
      wait_for_products(rows);
      barrier_arrive(barrier.state_written(), 2 * kWarpGroup);

#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const bool absent = first_row() + 8 * half >= inputs.present;
#pragma unroll
        for (int c = 0; c < kSlice / 8; ++c) {
#pragma unroll
          for (int side = 0; side < 2; ++side) {
            float& d_write = at(rows, 0, c, half, side);
            d_write = absent ? 0 : inputs.write[half] * d_write;
          }
        }
      }
      store_transposed<Element, kChunk, kSlice>(rows, slice.d_write);
      fence_async();
      barrier_wait(barrier.state_warps(), kWarpGroup);
      // (R M)^T dO + dW + (M - I)^T dW: the larger part of dE is never rounded.
      warpgroup_fence_operand(rows);
      warpgroup_arrive();
      add_to_batch(FromTransposed{}, transposed<Element, kChunk, kChunk>(stage.inverse),
                   tile<Element, kSlice, kChunk>(slice.d_write), rows, GMMA::ScaleOut::One);
      add_to_batch(BothTransposed{}, transposed<Element, kChunk, kChunk>(stage.read),
                   narrow_transposed(stage.d_o[group]), rows, GMMA::ScaleOut::One);
      warpgroup_commit_batch();
#pragma unroll
      for (int i = 0; i < size(state); ++i) state(i) *= inputs.decay * (inputs.unit / unit);
      unit = inputs.unit;
      wait_barrier(control.scaled, ring.phase);
      wait_barrier(query_control.full, query.phase);
      multiply(FromTransposed{}, transposed<Element, kChunk, kK>(q), tile<Element, kSlice, kChunk>(stage.scaled[group]),
               state, GMMA::ScaleOut::One);
      warpgroup_wait<1>();
      warpgroup_fence_operand(rows);

      if (!first) barrier_wait(barrier.write_read(), 2 * kWarpGroup);
      store<Element, kSlice>(slice.d_error, [&](int c, int half) {
        return make_float2(at(rows, 0, c, half, 0), at(rows, 0, c, half, 1));
      });
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const bool absent = first_row() + 8 * half >= inputs.present;
#pragma unroll
        for (int c = 0; c < kSlice / 8; ++c) {
#pragma unroll
          for (int side = 0; side < 2; ++side) {
            float& e = at(rows, 0, c, half, side);
            const float d_o = element(inputs.values[half][c], side);
            e = absent ? 0 : -fmaf(inputs.error[half], e, inputs.correction[half] * d_o);
          }
        }
      }
      store_transposed<Element, kChunk, kSlice>(rows, stage.d_o[group]);
      fence_async();
      barrier_wait(barrier.state_warps(), kWarpGroup);
      barrier_arrive(barrier.write_written(), 2 * kWarpGroup);
      multiply(FromTransposed{}, transposed<Element, kChunk, kK>(stage.k),
               tile<Element, kSlice, kChunk>(stage.d_o[group]), state, GMMA::ScaleOut::One);
      ring.template advance<Shape::kStages>();
      query.template advance<Shape::kQueryStages>();
      if (chunk > 0) load_inputs(chunk - 1);
      wait_for_products(state);
      release(control.empty);
      release(query_control.empty);
    }
#pragma unroll
    for (int i = 0; i < size(state); ++i) state(i) *= 1 / unit;
    store_state<kK, kSlice>(x, y.d_initial_state, n, head, first_v(group), state);
  }

  /// A slice of d_o as the matrix of kSlice rows that its columns are.
  static __device__ auto narrow_transposed(Element* tile) {
    using Atom =
        std::conditional_t<kSlice == 64, GMMA::Layout_MN_SW128_Atom<Element>, GMMA::Layout_MN_SW64_Atom<Element>>;
    return make_tensor(make_smem_ptr(tile), tile_to_shape(Atom{}, cute::Shape<Int<kSlice>, Int<kChunk>>{}));
  }

  /// diag(query) dO of a chunk, in its unit, rounded.
  __device__ void scale(int chunk, int stage, int phase, int group, float strength) const {
    auto& control = shared.control[stage];
    wait_barrier(control.full, phase);
    std::uint32_t values[2][kSlice / 8];
    load_pairs(shared.stage[stage].d_o[group], values);
    const float unit = unit_of(control.factors, strength);
    Rows rows;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = first_row() + 8 * half;
      const float query = unit * control.factors.query[row];
      const bool absent = row >= count(chunk);
#pragma unroll
      for (int c = 0; c < kSlice / 8; ++c) {
#pragma unroll
        for (int side = 0; side < 2; ++side) {
          at(rows, 0, c, half, side) = absent ? 0 : query * element(values[half][c], side);
        }
      }
    }
    store_transposed<Element, kChunk, kSlice>(rows, shared.stage[stage].scaled[group]);
    fence_async();
    release(control.scaled);
  }

  /// Rounds diag(query) dO a chunk ahead, and stores dS+ and dE.
  __device__ void assist(int group) const {
    auto& slice = shared.slice[group];
    const SliceBarriers barrier(group);
    const int chunks = sequence.chunks();
    const bool stores = threadIdx.x % kWarpGroup == 0;
    RingPlace ring, next;
    const float strength = KeyHead(x, head / x.group).strength;
    if (chunks > 0) scale(chunks - 1, 0, 0, group, strength);
    for (int chunk = chunks - 1; chunk >= 0; --chunk, ring = next) {
      const std::int64_t index = index_of(chunk);
      next.template advance<Shape::kStages>();
      if (chunk > 0) scale(chunk - 1, next.stage, next.phase, group, strength);
      barrier_wait(barrier.state_written(), 2 * kWarpGroup);
      if (stores) {
        queue_tile_rows<kK, kSlice>(slice.state, y.d_states + index * x.V_rows * kK, x.V_rows, first_v(group));
        wait_until_read();
      }
      __syncwarp();
      if (chunk > 0) barrier_arrive(barrier.state_read(), 2 * kWarpGroup);
      barrier_wait(barrier.write_written(), 2 * kWarpGroup);
      if (stores) store_box(y.d_error_slice, slice.d_error, first_v(group), 0, 0, static_cast<int>(index));
      release(shared.control[ring.stage].empty);
      if (chunk > 0) barrier_arrive(barrier.write_read(), 2 * kWarpGroup);
      if (stores && is_followed()) {
        wait_for_stores<2>();  // those of the chunks behind this one
        tell_progress(progress(), chunks - 1 - chunk);
      }
    }
    if (stores) {
      wait_for_stores();
      if (is_followed()) tell_progress(progress(), chunks);
      wait_for_kernel_before();  // whoever waits for this kernel waits for that one, too
    }
  }
};

template <class Shape>
__global__ __launch_bounds__(Shape::kThreads, 1) void reverse(const __grid_constant__ BackwardArguments y) {
  extern __shared__ __align__(1024) std::uint8_t memory[];
  auto& shared = *reinterpret_cast<typename Shape::Shared*>(memory);
  constexpr int kWarps = Shape::kGroups * kWarpGroup / 32;  // of the state warpgroups
  if (threadIdx.x == 0) {
    for (auto& control : shared.control) {
      initialize_barrier(control.full, 1);
      initialize_barrier(control.empty, 2 * kWarps);
      initialize_barrier(control.scaled, kWarps);
    }
    for (auto& control : shared.query_control) {
      initialize_barrier(control.full, 1);
      initialize_barrier(control.empty, kWarps);
    }
    cutlass::arch::fence_barrier_init();
  }
  const int n = blockIdx.z, head = blockIdx.y;
  const Reverse<Shape> work{y, y.forward, shared, sequence(y.forward.sequences, n), head, n};
  if (work.is_followed() && threadIdx.x == 0) {
    work.progress() = 0;
    __threadfence();
  }
  __syncthreads();
  if (work.is_followed()) let_next_kernel_start();
  share_out<Shape>(work);
}

}  // namespace comba::delta_rule::cuda::sm90
