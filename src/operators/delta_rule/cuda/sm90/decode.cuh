#pragma once

#include "operators/delta_rule/cuda/sm90/state_boxes.cuh"

/// What generic/decode.cuh computes, to the bit, with states brought and taken by the copy engine. Here
///
///     u = beta (v - seen S^T p);   o = scale (alpha S^T q + u (k . q));   S = alpha S + k u^T
///
/// Grid: as many blocks as fit; each works on one piece after the other, kColumns of a state. Block: state warps, which
/// have all rows of a few columns each, so that no warp waits for another; two that prepare tokens, in turns; one
/// thread that moves states:
///
///     copying         bring 0 1 2 ..  | when 0 has its new state: store it;   when that is read: bring the next | ...
///     token warps     prepare a token into the next place that is free, up to kTokens ahead
///     state warps     a piece and its token are there: products, sums by shuffles, u, o;   new state | ...
///
/// Shared memory: kStages pieces, kTokens tokens, and barriers in memory: a piece has arrived, is done; a token is
/// ready, its place is free. States leave in the memory in which they came: a warp writes what it alone has read.
///
/// Order of sums: that of generic/decode.cuh. Chain c of kChains adds rows c, c + kChains, ...; then the second half of
/// the chains is added to the first, again and again. A lane has chain lane % kChains, and with 64 chains lane + 32,
/// too.
namespace comba::delta_rule::cuda::sm90 {

/// The second half of the lanes is added to the first, down to kDistance 1. While a lane has several sums, it gives
/// half of them away for the others' share of the rest: the upper lane keeps the upper half.
template <int kDistance, int kCount>
__device__ float sum_of_halves(const float (&x)[kCount]) {
  if constexpr (kDistance == 0) {
    static_assert(kCount == 1);
    return x[0];
  } else if constexpr (kCount == 1) {
    const float sum[1] = {x[0] + __shfl_xor_sync(~0u, x[0], kDistance)};
    return sum_of_halves<kDistance / 2>(sum);
  } else {
    const bool upper = (threadIdx.x & kDistance) != 0;
    float kept[kCount / 2];
#pragma unroll
    for (int i = 0; i < kCount / 2; ++i) {
      const float given = upper ? x[i] : x[kCount / 2 + i], own = upper ? x[kCount / 2 + i] : x[i];
      kept[i] = own + __shfl_xor_sync(~0u, given, kDistance);
    }
    return sum_of_halves<kDistance / 2>(kept);
  }
}

/// Which of the sums a lane has after sum_of_halves(): S^T p or S^T q, of which column of its vector.
template <class Shape>
struct LaneSum {
  static constexpr int kHalf = (Shape::kChains < 32 ? Shape::kChains : 32) / 2;  ///< of the chains of a warp
  static constexpr int kCopies = kHalf / Shape::kVector;                         ///< lanes that have the same one

  static __device__ int lane() { return static_cast<int>(threadIdx.x) % 32; }
  static __device__ bool is_read() { return (lane() & kHalf) != 0; }
  static __device__ int column() { return lane() % kHalf / kCopies; }
  static __device__ bool is_first() { return lane() % kCopies == 0; }
  /// A lane of the same vector that has a column.
  static __device__ int lane_of(int column) { return (lane() & ~(2 * kHalf - 1)) + column * kCopies; }
};

/// What a lane holds of a piece: 16 bytes of each row of its chains.
template <class Shape>
struct LaneState {
  static constexpr int kRows = Shape::kLaneChains * Shape::kChainRows, kVector = Shape::kVector;
  using Element = typename Shape::StateElement;
  float at[kRows][kVector];

  static __device__ int lane() { return static_cast<int>(threadIdx.x) % 32; }
  static __device__ int first_row() { return lane() % (Shape::kChains < 32 ? Shape::kChains : 32); }
  /// Vector of a row of the piece.
  static __device__ int vector() {
    const int of_warp = Shape::kRowLanes == 1 ? 0 : lane() / Shape::kChains;
    return static_cast<int>(threadIdx.x) / 32 * Shape::kRowLanes + of_warp;
  }
  /// Its place in the first row, and so in all others, which are multiples of 8 further on. Swizzle: the number of the
  /// vector in a box is xor'ed with bits of that of the row, so that 8 rows of one vector are in different banks.
  static __device__ int place() {
    constexpr int kVectors = Shape::kRowBytes / 16;
    const int row = first_row(), box = vector() / kVectors, swizzle = kVectors == 8 ? row % 8 : row / 2 % 4;
    return box * Shape::kBoxBytes + row * Shape::kRowBytes + (vector() % kVectors ^ swizzle) * 16;
  }
  /// Row i of the lane, behind its first one: chain after chain.
  static __device__ constexpr int row(int i) {
    return i / Shape::kChainRows * 32 + i % Shape::kChainRows * Shape::kChains;
  }

  __device__ void load(const std::uint8_t* from) {
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      const uint4 raw = *reinterpret_cast<const uint4*>(from + row(i) * Shape::kRowBytes);
      const Element* const elements = reinterpret_cast<const Element*>(&raw);
#pragma unroll
      for (int c = 0; c < kVector; ++c) at[i][c] = static_cast<float>(elements[c]);
    }
  }

  __device__ void store(std::uint8_t* to) const {
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      uint4 raw;
      Element* const elements = reinterpret_cast<Element*>(&raw);
#pragma unroll
      for (int c = 0; c < kVector; ++c) elements[c] = generic::from_float<Element>(at[i][c]);
      *reinterpret_cast<uint4*>(to + row(i) * Shape::kRowBytes) = raw;
    }
  }

  /// The lane's sum over all rows, of S^T p or S^T q (LaneSum).
  __device__ float multiply(const float* p, const float* q) const {
    float sums[2 * kVector] = {};
#pragma unroll
    for (int chain = 0; chain < Shape::kLaneChains; ++chain) {
      float of_chain[2 * kVector] = {};
#pragma unroll
      for (int j = 0; j < Shape::kChainRows; ++j) {
        const int i = chain * Shape::kChainRows + j;
        const float p_row = p[first_row() + row(i)], q_row = q[first_row() + row(i)];
#pragma unroll
        for (int c = 0; c < kVector; ++c) {
          of_chain[c] = fmaf(p_row, at[i][c], of_chain[c]);
          of_chain[kVector + c] = fmaf(q_row, at[i][c], of_chain[kVector + c]);
        }
      }
#pragma unroll
      for (int c = 0; c < 2 * kVector; ++c) sums[c] = chain == 0 ? of_chain[c] : sums[c] + of_chain[c];
    }
    return sum_of_halves<LaneSum<Shape>::kHalf>(sums);
  }

  /// S = alpha S + k u^T.
  __device__ void advance(float alpha, const float* k, const float (&u)[kVector]) {
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      const float k_row = k[first_row() + row(i)];
#pragma unroll
      for (int c = 0; c < kVector; ++c) at[i][c] = fmaf(k_row, u[c], alpha * at[i][c]);
    }
  }
};

/// An element of a tensor of any floating dtype.
__device__ inline void store_rounded(const generic::Strided& to, std::int64_t place, float x) {
  switch (to.dtype) {
    case DType::bf16:
      static_cast<__nv_bfloat16*>(to.data)[place] = generic::from_float<__nv_bfloat16>(x);
      break;
    case DType::f16:
      static_cast<__half*>(to.data)[place] = generic::from_float<__half>(x);
      break;
    default:
      static_cast<float*>(to.data)[place] = x;
  }
}

template <class Shape>
__device__ void advance_states(const DecodeArguments& x, typename Shape::Shared& shared) {
  using State = LaneState<Shape>;
  using Sum = LaneSum<Shape>;
  const auto release = [](ArrivalBarrier& barrier) {
    __syncwarp();
    if (State::lane() == 0) barrier.arrive();
  };
  const int place = State::place(), column = State::vector() * Shape::kVector + Sum::column();
  State state;
  Turn<Shape::kStages> turn;
  Turn<Shape::kTokens> token_turn;
  for (unsigned number = blockIdx.x; number < x.num_pieces; number += gridDim.x, turn.advance()) {
    shared.arrived[turn.place].wait(turn.parity);
    std::uint8_t* const stage = shared.stages[turn.place][0] + place;
    const auto order = shared.orders[turn.place];
    if (!order.skipped) state.load(stage);
    const bool writes = !order.skipped && Sum::is_read() && Sum::is_first() && order.column + column < x.V;
    std::int64_t to = order.batch * x.o.stride[0] + order.head * x.o.stride[2] + order.column + column;
    for (std::int64_t i = 1; i <= x.T; ++i, to += x.o.stride[1], token_turn.advance()) {
      shared.token_ready[token_turn.place].wait(token_turn.parity);
      const auto& token = shared.tokens[token_turn.place];
      if (!order.skipped) {
        const TokenGates gates = token.gates;
        const float own = state.multiply(token.p, token.q), other = __shfl_xor_sync(~0u, own, Sum::kHalf);
        const float sum_p = Sum::is_read() ? other : own, sum_q = Sum::is_read() ? own : other;
        const float u = gates.write(token.v[column], sum_p);
        if (writes) store_rounded(x.o, to, x.scale * gates.output(u, sum_q));
        float all_u[Shape::kVector];
#pragma unroll
        for (int c = 0; c < Shape::kVector; ++c) all_u[c] = __shfl_sync(~0u, u, Sum::lane_of(c));
        state.advance(gates.alpha, token.k, all_u);
        if (i == order.accepted) state.store(stage);
      }
      release(shared.token_free[token_turn.place]);
    }
    bulk_copy::publish_shared();
    release(shared.done[turn.place]);
  }
}

/// The tokens of the pieces of this block, one after the other.
struct TokenCursor {
  unsigned number;
  std::int64_t token;
  __device__ void advance(int steps, std::int64_t T) {
    for (token += steps; token >= T; token -= T) number += gridDim.x;
  }
};

/// A token and its values, between their loads and their preparation.
template <class T, class Shape>
struct ComingToken {
  static constexpr int kValues = (Shape::kColumns + 31) / 32;
  generic::RawToken<T, Shape::kKeys> raw;
  unsigned values[kValues];
  int batch = 0, head = 0;

  __device__ void load(const DecodeArguments& x, const TokenCursor& at) {
    if (at.number >= x.num_pieces) return;
    const PieceIndex piece(x, at.number, Shape::kColumns);
    batch = piece.batch, head = piece.head;
    raw.load(x, generic::Slice(x, batch, head), at.token);
    const T* const from = static_cast<const T*>(x.v.data) + batch * x.v.stride[0] + at.token * x.v.stride[1] +
                          head * x.v.stride[2] + piece.column;
#pragma unroll
    for (int i = 0; i < kValues; ++i) {
      const int column = static_cast<int>(threadIdx.x) % 32 + 32 * i;
      values[i] = column < min(Shape::kColumns, x.V - piece.column) ? generic::load_bits(from + column) : 0;
    }
  }
};

/// One of the token warps. A token is loaded before the one ahead of it is prepared.
template <class T, class Shape>
__device__ void prepare_tokens(const DecodeArguments& x, typename Shape::Shared& shared, int warp) {
  TokenCursor at{blockIdx.x, 0};
  at.advance(warp, x.T);
  Turn<Shape::kTokens> turn;
  turn.advance(warp);
  ComingToken<T, Shape> next;
  next.load(x, at);
  while (at.number < x.num_pieces) {
    const ComingToken<T, Shape> token = next;
    at.advance(Shape::kTokenWarps, x.T);
    next.load(x, at);
    const generic::HeadConstants head(x, generic::Slice(x, token.batch, token.head));
    shared.token_free[turn.place].wait(turn.parity ^ 1);
    auto& to = shared.tokens[turn.place];
    token.raw.prepare(x, head, to.q, to.k, to.p, to.gates);
#pragma unroll
    for (int i = 0; i < token.kValues; ++i) {
      const int column = static_cast<int>(threadIdx.x) % 32 + 32 * i;
      if (column < Shape::kColumns) to.v[column] = generic::as_float<T>(token.values[i]);
    }
    __syncwarp();
    if (threadIdx.x % 32 == 0) shared.token_ready[turn.place].arrive();
    turn.advance(Shape::kTokenWarps);
  }
}

template <class Shape>
__global__ __launch_bounds__(Shape::kThreads, Shape::kBlocks) void decode(const __grid_constant__ StateDecode x) {
  extern __shared__ __align__(1024) std::uint8_t memory[];
  auto& shared = *reinterpret_cast<typename Shape::Shared*>(memory);
  const int warp = static_cast<int>(threadIdx.x) / 32, token_warp = warp - Shape::kStateWarps;
  if (threadIdx.x == 0) {
    for (ArrivalBarrier& barrier : shared.arrived) barrier.init(1);
    for (ArrivalBarrier& barrier : shared.done) barrier.init(Shape::kStateWarps);
    for (ArrivalBarrier& barrier : shared.token_ready) barrier.init(1);
    for (ArrivalBarrier& barrier : shared.token_free) barrier.init(Shape::kStateWarps);
    ArrivalBarrier::make_visible();
  }
  __syncthreads();
  if (token_warp < 0) {
    advance_states<Shape>(x.call, shared);
  } else if (token_warp == Shape::kTokenWarps) {
    if (threadIdx.x % 32 == 0) copy_states<Shape>(x, shared);
  } else if (x.call.q.dtype == DType::bf16) {
    prepare_tokens<__nv_bfloat16, Shape>(x.call, shared, token_warp);
  } else if (x.call.q.dtype == DType::f16) {
    prepare_tokens<__half, Shape>(x.call, shared, token_warp);
  } else {
    prepare_tokens<float, Shape>(x.call, shared, token_warp);
  }
}

}  // namespace comba::delta_rule::cuda::sm90
