#pragma once

#include "operators/delta_rule/cuda/generic/chunk.cuh"

/// From chunk to chunk along a sequence, the state in registers (README.md section 10).
///
///     Z = V - diag(feedback) P S         E = diag(beta) Z         error = Z + N E         Vn = E + diag(beta) N E
///     O = diag(query) Q S + (R M) E      S <- decay S + K^T diag(write) Vn
///
/// Grid: one block for each slice of 64 columns of V of each value head of each sequence. Block: 256 threads.
/// Forward writes O. For backward, which needs no O, the state before each chunk, rounded as it enters products, and
/// the errors go to the workspace.
/// Shared memory: five tiles. Tiles of q, k and p come one after the other; the state passes through one of them.
/// Numerics: state and sums in fp32; S and E are rounded as operands, once a chunk, of diag(write) Vn the rest as well.
/// Vn is made of the rounded E: then M, whose columns may cancel, acts on its error, too.
namespace comba::delta_rule::cuda::generic {

template <class Element>
struct ScanShared {
  SharedTile<Element> key, query, state, value, coupling;
  RowFactors rows;
};

/// What backward keeps of a scan.
template <class Element>
struct SavedStates {
  Element* states = nullptr;  ///< [slots, HV, K tiles, V tiles] tiles: S before the chunk
  float* errors = nullptr;    ///< [slots, HV, C, V tiles * 64]
};

template <class Element>
struct ScanArguments : ChunkArguments<Element> {
  SavedStates<Element> saved;

  /// Tile (k, v) of the saved state before a chunk.
  __device__ Element* saved_tile(Element* states, std::int64_t slot, int head, int k, int v) const {
    return states + ((this->number(slot, head) * this->K_tiles + k) * this->V_tiles + v) * kSide * kSide;
  }
  /// Rows of errors, or of their gradients.
  __device__ float* saved_rows(float* rows, std::int64_t slot, int head) const {
    return rows + this->number(slot, head) * kSide * (this->V_tiles * kSide);
  }
};

/// A slice of the state of one head, for each 64 rows of K.
template <int kTiles>
struct StateSlice {
  Accumulators tile[kTiles];

  template <class F>
  static __device__ void for_each_place(const Arguments& x, const Strided& tensor, std::int64_t n, int head,
                                        int first_v, StateSlice& state, const F& f) {
    if (tensor.data == nullptr) return;
    float* const from = static_cast<float*>(tensor.data) + n * tensor.stride[0] + head * tensor.stride[1] + first_v;
#pragma unroll
    for (int k = 0; k < kTiles; ++k) {
      state.tile[k].for_each([&](int row, int column, float& value) {
        if (k * kSide + row < x.K && first_v + column < x.V)
          f(from[(k * kSide + row) * tensor.stride[2] + column], value);
      });
    }
  }

  __device__ void load(const Arguments& x, const Strided& tensor, std::int64_t n, int head, int first_v) {
    for_each_place(x, tensor, n, head, first_v, *this, [](const float& memory, float& value) { value = memory; });
  }
  __device__ void store(const Arguments& x, const Strided& tensor, std::int64_t n, int head, int first_v) {
    for_each_place(x, tensor, n, head, first_v, *this, [](float& memory, float& value) { memory = value; });
  }
};

/// A tile of the workspace, whose rows follow each other.
template <class Element>
__device__ Window<Element> tile_window(const Element* data) {
  return Window<Element>(const_cast<Element*>(data), kSide, kSide, kSide);
}

/// The block's slice of a sequence.
template <class Element>
struct ScanPlace {
  int slice;
  Heads heads;
  std::int64_t n;
  Sequence sequence;

  __device__ explicit ScanPlace(const ChunkArguments<Element>& x)
      : slice(static_cast<int>(blockIdx.x % x.V_tiles)),
        heads(x, static_cast<int>(blockIdx.x / x.V_tiles % x.HV)),
        n(blockIdx.x / x.V_tiles / x.HV),
        sequence(sequence_at(x, n)) {}
};

/// A chunk of the sequence, and where what it brings lies.
template <class Element>
struct ScanChunk {
  Chunk chunk;
  const Couplings<Element>& couplings;
  Directions<Element> directions;

  __device__ ScanChunk(const ChunkArguments<Element>& x, const ScanPlace<Element>& place, float correction,
                       std::int64_t index)
      : chunk(place.sequence, index),
        couplings(x.couplings[x.number(chunk.slot, place.heads.value)]),
        directions(x, chunk, place.heads, correction) {}
};

/// kTiles: at least K / 64. What a step needs from memory is on its way during the step before.
template <class Element, int kTiles, bool kForBackward>
__global__ __launch_bounds__(kBlockThreads, 1) void scan(const __grid_constant__ ScanArguments<Element> x) {
  constexpr bool kRounds = sizeof(Element) < sizeof(float);
  extern __shared__ __align__(16) std::uint8_t memory[];
  auto& shared = *reinterpret_cast<ScanShared<Element>*>(memory);
  const RowFactors& rows = shared.rows;
  const ScanPlace<Element> place(x);
  const Heads& heads = place.heads;
  const int first_v = place.slice * kSide;
  const float correction = Strengths(x, heads.key).correction;
  const std::int64_t chunks = place.sequence.chunks();
  StateSlice<kTiles> state;
  state.load(x, x.initial_state, place.n, heads.value, first_v);

  RawRowFactors next_rows;
  RawTile<Element> next_key, next_value, next_coupling;
  RawQueries<Element> next_query;
  const auto load_chunk = [&](std::int64_t index) {
    if (index >= chunks) return;
    const ScanChunk<Element> at(x, place, correction, index);
    next_rows.load(at.couplings.rows);
    next_key.load(at.directions.p, 0);
    if constexpr (!kForBackward) next_query.load(at.directions, 0);
    next_value.load(rows_of<Element>(x.v, at.chunk, heads.value, x.V), first_v);
    next_coupling.load(tile_window(at.couplings.feedback), 0);
  };
  load_chunk(0);
  for (std::int64_t index = 0; index < chunks; ++index) {
    const ScanChunk<Element> at(x, place, correction, index);
    const Chunk& chunk = at.chunk;
    next_rows.put(shared.rows);
    next_value.put(shared.value);
    next_coupling.put(shared.coupling);
    __syncthreads();

    Accumulators recalled, read;  // P S, and Q S
#pragma unroll
    for (int k = 0; k < kTiles; ++k) {
      if (k >= x.K_tiles) break;
      store(state.tile[k], shared.state);
      next_key.put(shared.key, rows.p_scale);
      if constexpr (kForBackward) {
        Element* const saved = x.saved_tile(x.saved.states, chunk.slot, heads.value, k, place.slice);
        state.tile[k].for_each_pair(
            [&](int row, int column, float(&pair)[2]) { store_pair(saved + row * kSide + column, pair[0], pair[1]); });
      } else {
        next_query.put(shared.query, at.directions, rows.q_scale);
      }
      __syncthreads();
      if (k + 1 < x.K_tiles) {
        next_key.load(at.directions.p, (k + 1) * kSide);
        if constexpr (!kForBackward) next_query.load(at.directions, (k + 1) * kSide);
      } else {
        next_key.load(at.directions.k, 0);
        if constexpr (!kForBackward) next_coupling.load(tile_window(at.couplings.read), 0);
      }
      multiply<As::stored, As::stored>(shared.key, shared.state, recalled);
      if constexpr (!kForBackward) multiply<As::stored, As::stored>(shared.query, shared.state, read);
      __syncthreads();
    }

    // Z and the errors in place of P S.
    Accumulators& error = recalled;
    error.for_each(
        [&](int i, int v, float& z) { z = static_cast<float>(shared.value.at[i][v]) - rows.feedback[i] * z; });
    store_rows(error, shared.state, [&](int i) { return rows.beta[i]; });
    if constexpr (!kForBackward) {
      next_coupling.put(shared.query);
      read.scale_rows([&](int i) { return rows.query[i]; });
    }
    __syncthreads();
    Accumulators fed_back;  // N E
    multiply<As::stored, As::stored>(shared.coupling, shared.state, fed_back);
    if constexpr (kForBackward) {
      error.add(fed_back);
      float* const saved = x.saved_rows(x.saved.errors, chunk.slot, heads.value) + first_v;
      error.for_each_pair([&](int row, int column, float(&pair)[2]) {
        store_pair(saved + row * (x.V_tiles * kSide) + column, pair[0], pair[1]);
      });
    }
    if constexpr (!kForBackward) multiply<As::stored, As::stored>(shared.query, shared.state, read);
    __syncthreads();
    Accumulators& writes = fed_back;
    writes.for_each([&](int i, int v, float& write) {
      write = fmaf(rows.beta[i], write, static_cast<float>(shared.state.at[i][v]));
    });
    const auto write_factor = [&](int i) { return rows.write[i]; };
    store_rows(writes, shared.state, write_factor);
    if constexpr (kRounds) store_rests(writes, shared.state, shared.value, write_factor);
    if constexpr (!kForBackward) store(read, shared.query);
#pragma unroll
    for (int k = 0; k < kTiles; ++k) {
      if (k >= x.K_tiles) break;
      next_key.put(shared.key, rows.k_scale);
      state.tile[k].scale(rows.decay);
      __syncthreads();
      if (k + 1 < x.K_tiles) {
        next_key.load(at.directions.k, (k + 1) * kSide);
      } else {
        load_chunk(index + 1);
      }
      multiply<As::transposed, As::stored>(shared.key, shared.state, state.tile[k]);
      if constexpr (kRounds) multiply<As::transposed, As::stored>(shared.key, shared.value, state.tile[k]);
      __syncthreads();
    }
    if constexpr (!kForBackward) write(shared.query, rows_of<Element>(x.o, chunk, heads.value, x.V), first_v);
  }
  state.store(x, x.final_state, place.n, heads.value, first_v);
}

}  // namespace comba::delta_rule::cuda::generic
