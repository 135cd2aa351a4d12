#pragma once

#include <cstdint>

#include "operators/delta_rule/cuda/generic/prepare.cuh"

/// The recurrence token by token, the state in registers: forward of any length, and decode.
///
///     u = beta (v - seen S^T p);   o = scale (alpha S^T q + u (k . q));   S = alpha S + k u^T     (README.md section
///     2)
///
/// with seen = 1 for rule comba and alpha for gated_delta. Both products read the old state, so a token is one pass
/// over it and one sum over the lanes of a warp.
///
/// Grid: one block for each slice of 32 columns of the state of each value head of each sequence.
/// Block: 256 threads. The upper four warps prepare the next 8 tokens (loads, correction, l2norm, gates) in shared
/// memory while the lower four advance the state by the present 8, each its own 8 columns without a word to the others:
///
///     warps 4..7   prepare 0 | prepare 1 | prepare 2 | ...
///     warps 0..3   load S    | advance 0 | advance 1 | ...          | is a barrier of the block
///
/// Registers: a lane of the lower warps holds 8 columns of K / 32 rows.
/// Shared memory: two tiles of 8 tokens, 3 K + 36 floats each: 50 KB at K = 256.
/// Numerics: fp32 throughout; sums in a fixed order, so the bits depend on nothing but the inputs of the sequence.
namespace comba::delta_rule::cuda::generic {

/// What a lane holds of the state: kRows rows from kRows * lane on, the columns of its warp.
template <int kRows>
struct State {
  float at[kRows][kWarpColumns];

  static __device__ int lane() { return static_cast<int>(threadIdx.x) % 32; }
  static __device__ int first_column(const Slice& s) {
    return s.column + static_cast<int>(threadIdx.x) / 32 * kWarpColumns;
  }

  /// kVectors: every row of the tensor is aligned to 16 bytes, and V is a multiple of 4.
  template <bool kVectors>
  __device__ void load(const Arguments& x, const Slice& s, const Strided& tensor) {
    constexpr int kStep = kVectors ? 4 : 1;
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
#pragma unroll
      for (int c = 0; c < kWarpColumns; c += kStep) {
        if (tensor.data && kRows * lane() + r < x.K && first_column(s) + c < x.V) {
          read<kStep>(address(s, tensor, r) + c, &at[r][c]);
        } else {
#pragma unroll
          for (int i = c; i < c + kStep; ++i) at[r][i] = 0;
        }
      }
    }
  }

  template <bool kVectors>
  __device__ void store(const Arguments& x, const Slice& s, const Strided& tensor) const {
    constexpr int kStep = kVectors ? 4 : 1;
    if (tensor.data == nullptr) return;
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
#pragma unroll
      for (int c = 0; c < kWarpColumns; c += kStep) {
        if (kRows * lane() + r < x.K && first_column(s) + c < x.V) {
          write<kStep>(&at[r][c], address(s, tensor, r) + c);
        }
      }
    }
  }

 private:
  static __device__ float* address(const Slice& s, const Strided& tensor, int r) {
    return static_cast<float*>(tensor.data) + s.sequence * tensor.stride[0] + s.head * tensor.stride[1] +
           (kRows * lane() + r) * tensor.stride[2] + first_column(s);
  }

  template <int kCount>
  static __device__ void read(const float* from, float* at) {
    if constexpr (kCount == 4) {
      const float4 four = *reinterpret_cast<const float4*>(from);
      at[0] = four.x, at[1] = four.y, at[2] = four.z, at[3] = four.w;
    } else {
      *at = *from;
    }
  }

  template <int kCount>
  static __device__ void write(const float* at, float* to) {
    if constexpr (kCount == 4) {
      *reinterpret_cast<float4*>(to) = make_float4(at[0], at[1], at[2], at[3]);
    } else {
      *to = *at;
    }
  }
};

/// Keeps one half of the first 2 kHalf values, summed with the lane that keeps the other half.
template <int kHalf>
__device__ void fold(float (&value)[16]) {
  const bool upper = threadIdx.x & (2 * kHalf);
#pragma unroll
  for (int i = 0; i < kHalf; ++i) {
    const float kept = upper ? value[i + kHalf] : value[i], given = upper ? value[i] : value[i + kHalf];
    value[i] = kept + __shfl_xor_sync(~0u, given, 2 * kHalf);
  }
}

/// Of 16 values a lane, sums over all lanes: lane L returns the sum of value L / 2.
inline __device__ float sums_over_lanes(float (&value)[16]) {
  fold<8>(value);
  fold<4>(value);
  fold<2>(value);
  fold<1>(value);
  return value[0] + __shfl_xor_sync(~0u, value[0], 1);
}

/// Token i of a tile: its output, and the state after it.
template <class T, int kRows, int kKeys>
__device__ void advance(const Arguments& x, const Slice& s, T* o, int i, const Tile<kKeys>& tile, State<kRows>& state) {
  const int lane = State<kRows>::lane(), first_key = kRows * lane;
  float value[16] = {};  // S^T p of the warp's columns, then S^T q
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const float p = tile.p[i][first_key + r], q = tile.q[i][first_key + r];
#pragma unroll
    for (int c = 0; c < kWarpColumns; ++c) {
      value[c] = fmaf(p, state.at[r][c], value[c]);
      value[kWarpColumns + c] = fmaf(q, state.at[r][c], value[kWarpColumns + c]);
    }
  }
  const float sum = sums_over_lanes(value);

  // Lanes 0..15 have S^T p of column lane / 2, the others S^T q of column lane / 2 - 8.
  const int column = lane / 2 % kWarpColumns, of_slice = static_cast<int>(threadIdx.x) / 32 * kWarpColumns + column;
  const auto [alpha, seen, beta, k_dot_q] = tile.gates[i];
  float u = beta * (tile.v[i][of_slice] - seen * sum);
  u = __shfl_sync(~0u, u, lane % 16);
  if (lane >= 16 && lane % 2 == 0 && s.column + of_slice < x.V) {
    o[of_slice] = from_float<T>(x.scale * (alpha * sum + u * k_dot_q));
  }
  float write[kWarpColumns];
#pragma unroll
  for (int c = 0; c < kWarpColumns; ++c) write[c] = __shfl_sync(~0u, u, 2 * c);
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const float k = tile.k[i][first_key + r];
#pragma unroll
    for (int c = 0; c < kWarpColumns; ++c) state.at[r][c] = fmaf(k, write[c], alpha * state.at[r][c]);
  }
}

/// kRows = K / 32, rounded up.
template <class T, int kRows, bool kVectors>
__global__ __launch_bounds__(kThreads, 2) void recurrent(const __grid_constant__ Arguments x) {
  constexpr int kKeys = 32 * kRows;
  extern __shared__ float4 memory[];
  Tile<kKeys>* const tile = reinterpret_cast<Tile<kKeys>*>(memory);
  const Slice s(x);
  if (threadIdx.x >= kStateThreads) {
    if (s.begin >= s.end) return;
    const HeadConstants head(x, s);
    Preparation<T, kKeys> tokens;
    tokens.load(x, s, s.begin);
    tokens.prepare(x, head, tile[0]);
    tokens.load(x, s, s.begin + kTile);
    tile_barrier();
    int which = 0;
    for (std::int64_t first = s.begin; first < s.end; first += kTile, which ^= 1) {
      tokens.prepare(x, head, tile[which ^ 1]);
      tokens.load(x, s, first + 2 * kTile);
      tile_barrier();
    }
  } else {
    State<kRows> state;
    state.template load<kVectors>(x, s, x.initial_state);
    T* o = static_cast<T*>(x.o.data) + s.batch * x.o.stride[0] + s.begin * x.o.stride[1] + s.head * x.o.stride[2] +
           s.column;
    if (s.begin < s.end) tile_barrier();
    int which = 0;
    for (std::int64_t first = s.begin; first < s.end; first += kTile, which ^= 1) {
      const int count = static_cast<int>(min(std::int64_t{kTile}, s.end - first));
#pragma unroll 1
      for (int i = 0; i < count; ++i, o += x.o.stride[1]) advance(x, s, o, i, tile[which], state);
      tile_barrier();
    }
    state.template store<kVectors>(x, s, x.final_state);
  }
}

}  // namespace comba::delta_rule::cuda::generic
