#pragma once

#include "operators/delta_rule/cuda/generic/prepare.cuh"

/// New tokens of independent sequences: one pass over the state, which stays in registers for all tokens of the call.
///
///     u = beta (v - seen S^T p);   o = scale (alpha S^T q + u (k . q));   S = alpha S + k u^T     (README.md section
///     2)
///
/// with seen = 1 for rule comba and alpha for gated_delta. Both products read the old state.
///
/// Grid: as many blocks as fit; each works on one piece after the other: as many columns of the state of a value head
/// of a batch row as fill 128 bytes. Block: state warps, whose lanes hold 32 elements, 16 bytes a row, and one more
/// that prepares the tokens of the next piece meanwhile; | is a barrier of the block:
///
///     token warp      prepare 0 | prepare 1               | prepare 2               | ...
///     state warps               | products, sums, update  | products, sums, update  | ...
///
/// Shared memory: the states of the next two pieces, on their way; each thread reads what it copied itself, so nobody
/// has to be waited for. Tokens as q, k, p, twice. Sums over the rows of each warp, of which a thread makes those of a
/// column, and u. Numerics: fp32 throughout; a state in bf16 is rounded once a call. The order of sums, which
/// cuda/sm90/decode.cuh has too: rows r, r + kRowStep, ... one after the other, for each r < kRowStep; of these sums
/// the second half is added to the first, again and again.
namespace comba::delta_rule::cuda::generic {

template <class Element>
__device__ Element* row_of(const Strided& x, int batch, std::int64_t token, int head) {
  return static_cast<Element*>(x.data) + batch * x.stride[0] + token * x.stride[1] + head * x.stride[2];
}

/// One piece of the work.
template <class StateElement>
struct DecodePiece {
  unsigned number;
  int column, head, batch;
  StateElement* state = nullptr;  ///< its first column; null: there is no such piece, or its row is skipped

  __device__ DecodePiece(const DecodeArguments& x, unsigned number, int columns) : number(number) {
    const unsigned slices = x.num_slices, heads = x.HV;
    column = static_cast<int>(number % slices) * columns;
    head = static_cast<int>(number / slices % heads);
    batch = static_cast<int>(number / slices / heads);
    if (number >= x.num_pieces) return;
    const std::int64_t index = x.state_indices ? x.state_indices[batch * x.state_indices_stride] : batch;
    if (index < 0 || index >= x.num_states) return;
    state = static_cast<StateElement*>(x.initial_state.data) + index * x.initial_state.stride[0] +
            head * x.initial_state.stride[1] + column;
  }
};

/// What a lane holds of the state: columns first_column() .. of rows first_row() + kRowStep i.
template <class StateElement, int kKeys>
struct LaneState {
  static constexpr int kLaneColumns = 16 / sizeof(StateElement), kRows = 2 * sizeof(StateElement);
  static constexpr int kRowLanes = 8;                        ///< lanes that share a row
  static constexpr int kColumns = kRowLanes * kLaneColumns;  ///< of a piece
  static constexpr int kRowStep = kKeys / kRows;
  static constexpr int kThreads = kRowLanes * kRowStep;
  using Vector = uint4;
  using Stage = Vector[kRows][kThreads];
  float at[kRows][kLaneColumns];

  /// The rows of a warp are a quarter of kRowStep apart, so that its sums are the first two of the halvings above.
  static __device__ int first_row() {
    const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
    return lane / kRowLanes * (kRowStep / 4) + warp;
  }
  static __device__ int first_column() { return static_cast<int>(threadIdx.x) % kRowLanes * kLaneColumns; }

  /// Queues the copy of a piece as one group; `from`: its first column, or null for nothing.
  static __device__ void copy(const StateElement* from, std::int64_t stride, int K, int columns, Stage& to) {
    if (from && first_column() < columns) {
      const StateElement* row = from + first_row() * stride + first_column();
#pragma unroll
      for (int i = 0; i < kRows; ++i, row += kRowStep * stride) {
        if (first_row() + kRowStep * i < K) {
          asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(
                           static_cast<unsigned>(__cvta_generic_to_shared(&to[i][threadIdx.x]))),
                       "l"(row)
                       : "memory");
        }
      }
    }
    asm volatile("cp.async.commit_group;" ::: "memory");
  }

  /// Waits until at most kLater groups queued later are on their way.
  template <int kLater>
  static __device__ void wait_for_copy() {
    asm volatile("cp.async.wait_group %0;" ::"n"(kLater) : "memory");
  }

  __device__ void load(const Stage& from, int K, int columns) {
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      const Vector raw = from[i][threadIdx.x];
      const StateElement* const elements = reinterpret_cast<const StateElement*>(&raw);
      const bool exists = first_row() + kRowStep * i < K && first_column() < columns;
#pragma unroll
      for (int c = 0; c < kLaneColumns; ++c) at[i][c] = exists ? static_cast<float>(elements[c]) : 0;
    }
  }

  __device__ void store(StateElement* to, std::int64_t stride, int K, int columns) const {
    if (first_column() >= columns) return;
    StateElement* row = to + first_row() * stride + first_column();
#pragma unroll
    for (int i = 0; i < kRows; ++i, row += kRowStep * stride) {
      Vector raw;
      StateElement* const elements = reinterpret_cast<StateElement*>(&raw);
#pragma unroll
      for (int c = 0; c < kLaneColumns; ++c) elements[c] = from_float<StateElement>(at[i][c]);
      if (first_row() + kRowStep * i < K) *reinterpret_cast<Vector*>(row) = raw;
    }
  }

  /// Adds S^T p and S^T q of the lane's rows.
  __device__ void multiply(const float* p, const float* q, float (&recalled)[kLaneColumns],
                           float (&read)[kLaneColumns]) const {
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      const float p_row = p[first_row() + kRowStep * i], q_row = q[first_row() + kRowStep * i];
#pragma unroll
      for (int c = 0; c < kLaneColumns; ++c) {
        recalled[c] = fmaf(p_row, at[i][c], recalled[c]);
        read[c] = fmaf(q_row, at[i][c], read[c]);
      }
    }
  }

  /// S = alpha S + k u^T.
  __device__ void advance(float alpha, const float* k, const float (&u)[kLaneColumns]) {
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      const float k_row = k[first_row() + kRowStep * i];
#pragma unroll
      for (int c = 0; c < kLaneColumns; ++c) at[i][c] = fmaf(k_row, u[c], alpha * at[i][c]);
    }
  }
};

/// Sums over the rows of a warp, of S^T p and S^T q: of the lanes that share columns each is left with half of the
/// columns of one of the two, first_sum() and on.
template <int kLaneColumns>
struct WarpSums {
  static constexpr int kCount = kLaneColumns / 2;
  float at[kCount];

  static __device__ int lane() { return static_cast<int>(threadIdx.x) % 32; }
  static __device__ int which() { return lane() / 16; }  ///< 0: of S^T p
  static __device__ int first_sum() { return lane() % 8 * kLaneColumns + lane() / 8 % 2 * kCount; }

  __device__ WarpSums(const float (&recalled)[kLaneColumns], const float (&read)[kLaneColumns]) {
    float one[kLaneColumns];
#pragma unroll
    for (int c = 0; c < kLaneColumns; ++c) {
      const float given = which() == 0 ? read[c] : recalled[c], kept = which() == 0 ? recalled[c] : read[c];
      one[c] = kept + __shfl_xor_sync(~0u, given, 16);
    }
    const bool upper = lane() / 8 % 2 == 1;
#pragma unroll
    for (int c = 0; c < kCount; ++c) {
      const float given = upper ? one[c] : one[kCount + c], kept = upper ? one[kCount + c] : one[c];
      at[c] = kept + __shfl_xor_sync(~0u, given, 8);
    }
  }
};

/// The second half is added to the first, again and again.
template <int kCount>
__device__ float sum_by_halves(const float (&x)[kCount]) {
  if constexpr (kCount == 1) {
    return x[0];
  } else {
    float sums[kCount / 2];
#pragma unroll
    for (int i = 0; i < kCount / 2; ++i) sums[i] = x[i] + x[kCount / 2 + i];
    return sum_by_halves(sums);
  }
}

/// Shared memory of a block that prepares `tokens` tokens at a time.
template <class StateElement, int kKeys>
struct DecodeShared {
  using State = LaneState<StateElement, kKeys>;
  static constexpr int kApart = State::kColumns + 16;  ///< a sum of S^T q is half of the banks behind that of S^T p
  typename State::Stage stage[2];
  float sums[State::kThreads / 32][2][kApart];  ///< S^T p and S^T q over the rows of each warp
  float u[State::kColumns];
  TokenGates gates[2][kTile];
  float rows[2][3][kKeys];  ///< q, k, p of the tokens of a tile, twice

  static constexpr int bytes(int tokens) { return sizeof(DecodeShared) + (tokens - 1) * sizeof(rows); }
  __device__ float* row(int buffer, int tokens, int token, int which) {
    return &rows[0][0][0] + ((buffer * tokens + token) * 3 + which) * kKeys;
  }
};

/// The first piece from `number` on, of those the block works on, whose row is not skipped.
template <class StateElement>
__device__ DecodePiece<StateElement> find_piece(const DecodeArguments& x, unsigned number, int columns) {
  DecodePiece<StateElement> piece(x, number, columns);
  while (piece.state == nullptr && piece.number < x.num_pieces) {
    piece = DecodePiece<StateElement>(x, piece.number + gridDim.x, columns);
  }
  return piece;
}

/// The token warp. A token is loaded before the one ahead of it is prepared.
template <class T, class StateElement, int kKeys>
__device__ void prepare_tokens(const DecodeArguments& x, int tile, DecodeShared<StateElement, kKeys>& shared) {
  constexpr int kColumns = LaneState<StateElement, kKeys>::kColumns;
  auto piece = find_piece<StateElement>(x, blockIdx.x, kColumns);
  RawToken<T, kKeys> next_token;
  if (piece.state) next_token.load(x, Slice(x, piece.batch, piece.head), 0);
  for (int buffer = 0; piece.state;) {
    const auto next = find_piece<StateElement>(x, piece.number + gridDim.x, kColumns);
    const Slice slice(x, piece.batch, piece.head);
    const HeadConstants head(x, slice);
    for (std::int64_t first = 0; first < x.T; first += tile, buffer ^= 1) {
      for (int i = 0; i < tile && first + i < x.T; ++i) {
        const RawToken<T, kKeys> token = next_token;
        if (first + i + 1 < x.T) {
          next_token.load(x, slice, first + i + 1);
        } else if (next.state) {
          next_token.load(x, Slice(x, next.batch, next.head), 0);
        }
        token.prepare(x, head, shared.row(buffer, tile, i, 0), shared.row(buffer, tile, i, 1),
                      shared.row(buffer, tile, i, 2), shared.gates[buffer][i]);
      }
      tile_barrier();
    }
    piece = next;
  }
}

/// The sums of the block; u of a token and its output. Two neighbouring threads have a column: one S^T p, one S^T q.
template <class T, class StateElement, int kKeys>
struct ColumnSums {
  using State = LaneState<StateElement, kKeys>;
  static constexpr int kColumns = State::kColumns, kWarps = State::kThreads / 32;
  static constexpr int kMine = (2 * kColumns + State::kThreads - 1) / State::kThreads;  ///< of a thread

  const DecodeArguments& x;
  const DecodePiece<StateElement>& piece;
  DecodeShared<StateElement, kKeys>& shared;
  T values[kMine];

  static __device__ int which() { return static_cast<int>(threadIdx.x) % 2; }
  static __device__ int column(int mine) { return static_cast<int>(threadIdx.x + mine * State::kThreads) / 2; }
  __device__ bool exists(int mine) const { return column(mine) < min(kColumns, x.V - piece.column); }

  __device__ void load_values(std::int64_t token) {
    const T* const from = row_of<T>(x.v, piece.batch, token, piece.head) + piece.column;
#pragma unroll
    for (int i = 0; i < kMine; ++i) values[i] = exists(i) ? from[column(i)] : from_float<T>(0);
  }

  __device__ void finish(std::int64_t token, const TokenGates& gate) const {
    T* const to = row_of<T>(x.o, piece.batch, token, piece.head) + piece.column;
#pragma unroll
    for (int i = 0; i < kMine; ++i) {
      if (column(i) >= kColumns) break;  // all threads of a warp alike
      float of_warps[kWarps];
#pragma unroll
      for (int warp = 0; warp < kWarps; ++warp) of_warps[warp] = shared.sums[warp][which()][column(i)];
      const float sum = sum_by_halves(of_warps), other = __shfl_xor_sync(~0u, sum, 1);
      const float sum_p = which() == 0 ? sum : other, sum_q = which() == 0 ? other : sum;
      const float u = gate.write(static_cast<float>(values[i]), sum_p);
      if (which() == 0) {
        shared.u[column(i)] = u;
      } else if (exists(i)) {
        to[column(i)] = from_float<T>(x.scale * gate.output(u, sum_q));
      }
    }
  }
};

template <class T, class StateElement, int kKeys>
__device__ void advance_states(const DecodeArguments& x, int tile, DecodeShared<StateElement, kKeys>& shared) {
  using State = LaneState<StateElement, kKeys>;
  using Piece = DecodePiece<StateElement>;
  constexpr int kColumns = State::kColumns, kLaneColumns = State::kLaneColumns;
  const int warp = threadIdx.x / 32, first_column = State::first_column();
  const std::int64_t stride = x.initial_state.stride[2];
  const auto meet = [] { asm volatile("bar.sync 1, %0;" ::"n"(State::kThreads) : "memory"); };
  const auto copy = [&](unsigned number, int stage) {
    const Piece piece(x, number, kColumns);
    State::copy(piece.state, stride, x.K, x.V - piece.column, shared.stage[stage]);
  };
  copy(blockIdx.x, 0);
  copy(blockIdx.x + gridDim.x, 1);
  int buffer = 0, stage = 0;
  for (unsigned number = blockIdx.x; number < x.num_pieces; number += gridDim.x, stage ^= 1) {
    const Piece piece(x, number, kColumns);
    const int columns = x.V - piece.column;
    ColumnSums<T, StateElement, kKeys> sums{x, piece, shared};
    if (piece.state) sums.load_values(0);
    State state;
    State::template wait_for_copy<1>();
    state.load(shared.stage[stage], x.K, columns);
    copy(number + 2 * gridDim.x, stage);
    if (piece.state == nullptr) continue;
    const std::int64_t accepted = x.num_accepted ? x.num_accepted[piece.batch * x.num_accepted_stride] : x.T;
    for (std::int64_t first = 0; first < x.T; first += tile, buffer ^= 1) {
      tile_barrier();
      for (int i = 0; i < tile && first + i < x.T; ++i) {
        float recalled[kLaneColumns] = {}, read[kLaneColumns] = {}, u[kLaneColumns];
        state.multiply(shared.row(buffer, tile, i, 2), shared.row(buffer, tile, i, 0), recalled, read);
        const WarpSums<kLaneColumns> of_warp(recalled, read);
#pragma unroll
        for (int c = 0; c < of_warp.kCount; ++c) {
          shared.sums[warp][of_warp.which()][of_warp.first_sum() + c] = of_warp.at[c];
        }
        meet();
        const TokenGates gate = shared.gates[buffer][i];
        sums.finish(first + i, gate);
        if (first + i + 1 < x.T) sums.load_values(first + i + 1);
        meet();
#pragma unroll
        for (int c = 0; c < kLaneColumns; ++c) u[c] = shared.u[first_column + c];
        state.advance(gate.alpha, shared.row(buffer, tile, i, 1), u);
        if (first + i + 1 == accepted) state.store(piece.state, stride, x.K, columns);
      }
    }
  }
}

template <class StateElement, int kKeys>
constexpr int kDecodeThreads = LaneState<StateElement, kKeys>::kThreads + 32;

template <class T, class StateElement, int kKeys>
__global__ __launch_bounds__(
    kDecodeThreads<StateElement, kKeys>,
    768 / kDecodeThreads<StateElement, kKeys>) void decode(const __grid_constant__ DecodeArguments x) {
  extern __shared__ float4 memory[];
  auto& shared = *reinterpret_cast<DecodeShared<StateElement, kKeys>*>(memory);
  const int tile = static_cast<int>(min(std::int64_t{kTile}, x.T));
  if (threadIdx.x >= LaneState<StateElement, kKeys>::kThreads) {
    prepare_tokens<T>(x, tile, shared);
  } else {
    advance_states<T>(x, tile, shared);
  }
}

}  // namespace comba::delta_rule::cuda::generic
