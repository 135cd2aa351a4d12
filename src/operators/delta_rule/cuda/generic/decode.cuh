#pragma once

#include "operators/delta_rule/cuda/generic/prepare.cuh"

/// New tokens of independent sequences: one pass over the state, which stays in registers for all tokens of the call.
///
///     u = beta (v - seen S^T p);   o = scale (alpha S^T q + u (k . q));   S = alpha S + k u^T     (README.md section 2)
///
/// with seen = 1 for rule comba and alpha for gated_delta. Both products read the old state.
///
/// Grid: (slices of columns, value head, batch row). Block: a warp for each 32 rows of the state. A lane holds 16 bytes of
/// each of 8 rows, so that 8 lanes read 128 bytes of a row: all loads of a block are under way before the first value is
/// needed, while the tokens are prepared, a warp each.
/// Shared memory: q, k, p of up to 8 tokens; sums over the rows of each warp, twice, so that a token needs one barrier.
/// Numerics: fp32 throughout, sums in a fixed order; a state in bf16 is rounded once a call.
namespace comba::delta_rule::cuda::generic {

/// What decode is told besides. The state is `initial_state` of Arguments, of any of the dtypes f32 and bf16.
struct DecodeArguments : Arguments {
  const std::int32_t* state_indices = nullptr;  ///< [B], or null: b
  const std::int32_t* num_accepted = nullptr;   ///< [B], or null: T
  std::int64_t state_indices_stride = 0, num_accepted_stride = 0, num_states = 0;
};

template <class Element>
__device__ Element* row_of(const Strided& x, int batch, std::int64_t token, int head) {
  return static_cast<Element*>(x.data) + batch * x.stride[0] + token * x.stride[1] + head * x.stride[2];
}

/// What a lane holds of the state: columns first_column() .. of rows first_row() + kRowStep i.
template <class StateElement, int kKeys>
struct LaneState {
  static constexpr int kLaneColumns = 16 / sizeof(StateElement);
  static constexpr int kColumns = 8 * kLaneColumns;  ///< of a block
  static constexpr int kRows = 8;
  static constexpr int kRowStep = kKeys / kRows;
  float at[kRows][kLaneColumns];

  static __device__ int first_row() { return static_cast<int>(threadIdx.x) / 8; }
  static __device__ int first_column() { return static_cast<int>(threadIdx.x) % 8 * kLaneColumns; }

  /// `from`: the first column of the block.
  __device__ void load(const StateElement* from, std::int64_t stride, int K, int columns) {
    uint4 raw[kRows];
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      const int row = first_row() + kRowStep * i;
      raw[i] = row < K && first_column() < columns
                   ? *reinterpret_cast<const uint4*>(from + row * stride + first_column())
                   : uint4{};
    }
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      const StateElement* const elements = reinterpret_cast<const StateElement*>(&raw[i]);
#pragma unroll
      for (int c = 0; c < kLaneColumns; ++c) at[i][c] = static_cast<float>(elements[c]);
    }
  }

  __device__ void store(StateElement* to, std::int64_t stride, int K, int columns) const {
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      const int row = first_row() + kRowStep * i;
      uint4 raw;
      StateElement* const elements = reinterpret_cast<StateElement*>(&raw);
#pragma unroll
      for (int c = 0; c < kLaneColumns; ++c) elements[c] = from_float<StateElement>(at[i][c]);
      if (row < K && first_column() < columns) {
        *reinterpret_cast<uint4*>(to + row * stride + first_column()) = raw;
      }
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

template <class T, class StateElement, int kKeys>
__global__ __launch_bounds__(kKeys, 512 / kKeys) void decode(const __grid_constant__ DecodeArguments x) {
  using State = LaneState<StateElement, kKeys>;
  constexpr int kColumns = State::kColumns, kLaneColumns = State::kLaneColumns, kWarps = kKeys / 32;
  __shared__ float q[kTile][kKeys], k[kTile][kKeys], p[kTile][kKeys];
  __shared__ TokenGates gates[kTile];
  __shared__ float partial_sums[2][kWarps][2][kColumns];  // S^T p and S^T q over the rows of each warp
  const int batch = blockIdx.z, head = blockIdx.y, column = blockIdx.x * kColumns, columns = x.V - column;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, first_column = State::first_column();
  const std::int64_t index = x.state_indices ? x.state_indices[batch * x.state_indices_stride] : batch;
  if (index < 0 || index >= x.num_states) return;
  StateElement* const memory = static_cast<StateElement*>(x.initial_state.data) + index * x.initial_state.stride[0] +
                               head * x.initial_state.stride[1] + column;
  const std::int64_t accepted = x.num_accepted ? x.num_accepted[batch * x.num_accepted_stride] : x.T;
  State state;
  state.load(memory, x.initial_state.stride[2], x.K, columns);

  const Slice slice(x, batch, head);
  const HeadConstants constants(x, slice);
  for (std::int64_t first = 0; first < x.T; first += kTile) {
    const int count = static_cast<int>(min(std::int64_t{kTile}, x.T - first));
    if (first > 0) __syncthreads();  // the tokens before have been used
    for (int i = warp; i < count; i += kWarps) {
      RawToken<T, kKeys> raw;
      raw.load(x, slice, first + i);
      raw.prepare(x, constants, q[i], k[i], p[i], gates[i]);
    }
    float next_v[kLaneColumns];
    const auto load_values = [&](int i) {
      const T* const from = row_of<T>(x.v, batch, first + i, head) + column + first_column;
#pragma unroll
      for (int c = 0; c < kLaneColumns; ++c) next_v[c] = first_column < columns ? static_cast<float>(from[c]) : 0;
    };
    load_values(0);
    __syncthreads();
    for (int i = 0; i < count; ++i) {
      float v[kLaneColumns];
#pragma unroll
      for (int c = 0; c < kLaneColumns; ++c) v[c] = next_v[c];
      if (i + 1 < count) load_values(i + 1);
      float recalled[kLaneColumns] = {}, read[kLaneColumns] = {};
      state.multiply(p[i], q[i], recalled, read);
      auto& sums = partial_sums[i % 2];
#pragma unroll
      for (int c = 0; c < kLaneColumns; ++c) {
        recalled[c] += __shfl_xor_sync(~0u, recalled[c], 8);
        read[c] += __shfl_xor_sync(~0u, read[c], 8);
        recalled[c] += __shfl_xor_sync(~0u, recalled[c], 16);
        read[c] += __shfl_xor_sync(~0u, read[c], 16);
        if (lane < 8) sums[warp][0][first_column + c] = recalled[c], sums[warp][1][first_column + c] = read[c];
      }
      __syncthreads();
      const TokenGates gate = gates[i];
      float u[kLaneColumns], o[kLaneColumns];
#pragma unroll
      for (int c = 0; c < kLaneColumns; ++c) {
        float sum_p = 0, sum_q = 0;
#pragma unroll
        for (int w = 0; w < kWarps; ++w) {
          sum_p += sums[w][0][first_column + c], sum_q += sums[w][1][first_column + c];
        }
        u[c] = gate.beta * (v[c] - gate.seen * sum_p);
        o[c] = x.scale * (gate.alpha * sum_q + u[c] * gate.k_dot_q);
      }
      if (threadIdx.x < 8 && first_column < columns) {
        T* const to = row_of<T>(x.o, batch, first + i, head) + column + first_column;
#pragma unroll
        for (int c = 0; c < kLaneColumns; ++c) to[c] = from_float<T>(o[c]);
      }
      state.advance(gate.alpha, k[i], u);
      if (first + i + 1 == accepted) state.store(memory, x.initial_state.stride[2], x.K, columns);
    }
  }
}

}  // namespace comba::delta_rule::cuda::generic
