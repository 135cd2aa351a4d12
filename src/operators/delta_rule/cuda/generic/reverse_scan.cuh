#pragma once

#include "operators/delta_rule/cuda/generic/backward.cuh"

/// From chunk to chunk back along a sequence, the gradient of the state in registers (README.md sections 5 and 10).
///
///     dW = diag(write) K dS       dR = dW + N^T diag(beta) dW + (R M)^T dO       dV = diag(beta) dR
///     dS <- decay dS + Q^T diag(query) dO - P^T diag(feedback) dV
///
/// Grid: one block for each slice of 64 columns of V of each value head of each sequence. Block: 256 threads.
/// dS after each chunk, rounded as it enters products, and dR go to the workspace.
/// Shared memory: five tiles, as in scan.
namespace comba::delta_rule::cuda::generic {

/// Row i of a tile times factor[i].
template <class Element>
__device__ void scale_rows(SharedTile<Element>& tile, const float* factor) {
  for_each_piece([&](int, int row, int column) {
    Element* const piece = &tile.at[row][column];
    store_piece(load_piece(piece) * factor[row], piece);
  });
}

/// kTiles: at least K / 64. What a step needs from memory is on its way during the step before.
template <class Element, int kTiles>
__global__ __launch_bounds__(kBlockThreads, 1) void reverse_scan(const __grid_constant__ BackwardArguments<Element> x) {
  extern __shared__ __align__(16) std::uint8_t memory[];
  auto& shared = *reinterpret_cast<ScanShared<Element>*>(memory);
  const RowFactors& rows = shared.rows;
  const ScanPlace<Element> place(x);
  const Heads& heads = place.heads;
  const int first_v = place.slice * kSide;
  const float correction = Strengths(x, heads.key).correction;
  StateSlice<kTiles> d_state;
  d_state.load(x, x.d_final_state, place.n, heads.value, first_v);

  RawRowFactors next_rows;
  RawTile<Element> next_key, next_value, next_coupling;
  RawQueries<Element> next_query;
  const auto load_chunk = [&](std::int64_t index) {
    if (index < 0) return;
    const ScanChunk<Element> at(x, place, correction, index);
    next_rows.load(at.couplings.rows);
    next_key.load(at.directions.k, 0);
    next_value.load(rows_of<Element>(x.d_o, at.chunk, heads.value, x.V), first_v);
    next_coupling.load(tile_window(at.couplings.feedback), 0);
  };
  const auto load_directions = [&](const Directions<Element>& directions, int k) {
    next_query.load(directions, k * kSide);
    next_key.load(directions.p, k * kSide);
  };
  load_chunk(place.sequence.chunks() - 1);
  for (std::int64_t index = place.sequence.chunks(); index-- > 0;) {
    const ScanChunk<Element> at(x, place, correction, index);
    const Chunk& chunk = at.chunk;
    next_rows.put(shared.rows);
    next_value.put(shared.value);
    next_coupling.put(shared.coupling);
    __syncthreads();

    Accumulators d_writes;
#pragma unroll
    for (int k = 0; k < kTiles; ++k) {
      if (k >= x.K_tiles) break;
      store(d_state.tile[k], shared.state);
      Element* const saved = x.saved_tile(x.d_states, chunk.slot, heads.value, k, place.slice);
      d_state.tile[k].for_each_pair(
          [&](int row, int column, float(&pair)[2]) { store_pair(saved + row * kSide + column, pair[0], pair[1]); });
      next_key.put(shared.key, rows.k_scale);
      __syncthreads();
      if (k + 1 < x.K_tiles) {
        next_key.load(at.directions.k, (k + 1) * kSide);
      } else {
        next_coupling.load(tile_window(at.couplings.read), 0);
      }
      multiply<As::stored, As::stored>(shared.key, shared.state, d_writes);
      __syncthreads();
    }
    d_writes.scale_rows([&](int i) { return rows.write[i]; });
    store_rows(d_writes, shared.state, [&](int i) { return rows.beta[i]; });
    next_coupling.put(shared.query);
    __syncthreads();
    load_directions(at.directions, 0);
    multiply<As::transposed, As::stored>(shared.coupling, shared.state, d_writes);
    multiply<As::transposed, As::stored>(shared.query, shared.value, d_writes);
    __syncthreads();

    float* const saved = x.saved_rows(x.d_writes, chunk.slot, heads.value) + first_v;
    d_writes.for_each_pair([&](int row, int column, float(&pair)[2]) {
      store_pair(saved + row * (x.V_tiles * kSide) + column, pair[0], pair[1]);
    });
    d_writes.scale_rows([&](int i) { return rows.beta[i]; });
    Accumulators& dv = d_writes;
    if (x.dv.data) {
      store(dv, shared.coupling);
      __syncthreads();
      write(shared.coupling, rows_of<Element>(x.dv, chunk, heads.value, x.V), first_v);
    }
    store_rows(dv, shared.state, [&](int i) { return -rows.feedback[i]; });
    scale_rows(shared.value, rows.query);
#pragma unroll
    for (int k = 0; k < kTiles; ++k) {
      if (k >= x.K_tiles) break;
      next_query.put(shared.query, at.directions, rows.q_scale);
      next_key.put(shared.key, rows.p_scale);
      d_state.tile[k].scale(rows.decay);
      __syncthreads();
      if (k + 1 < x.K_tiles) {
        load_directions(at.directions, k + 1);
      } else {
        load_chunk(index - 1);
      }
      multiply<As::transposed, As::stored>(shared.query, shared.value, d_state.tile[k]);
      multiply<As::transposed, As::stored>(shared.key, shared.state, d_state.tile[k]);
      __syncthreads();
    }
  }
  d_state.store(x, x.d_initial_state, place.n, heads.value, first_v);
}

}  // namespace comba::delta_rule::cuda::generic
