#pragma once

#include "operators/model_step/cuda/bf16.cuh"
#include "operators/model_step/cuda/dependent_launch.cuh"
#include "operators/model_step/cuda/epilogues.cuh"
#include "operators/model_step/cuda/inputs.cuh"
#include "operators/model_step/model_step.h"

/// One token through the states of one layer: the delta rule (src/operators/delta_rule/README.md, sections 1 and 2),
/// gates, normalisation of q and k, and what of the gated norm behind it one slice of columns can do.
///
///     u = beta (v - seen S^T p);   o = scale (alpha S^T q + u (k . q));   S = alpha S + k u^T;   y = o f(gate) w
///
/// Both products read the old state, and need q and k only up to a factor: so that they, and the norms of q and k, are
/// sums over the rows that are formed at the same time. Grid: slices of kColumns columns, value heads, rows of the
/// step. Block: 256 threads; each holds 4 columns of K / kRowStep rows of the state, fetched before the wait.
///
///     state of the slice | wait | q, k | products | shuffles | barrier | u, o | S
///
/// Shared memory: sums of each warp. Numerics: fp32, sums in an order that depends on nothing but K.
namespace comba::model_step::cuda {

template <class StateElement>
struct StateUpdate {
  StateElement* state;    ///< [S, HV, K, V]
  const bf16* projected;  ///< [R, stride]  q | k | v | g | b | a
  const float* b;         ///< [H], or null: 1
  const float* d;         ///< [H], or null: 0
  const float* A_log;     ///< [HV]
  const float* dt_bias;   ///< [HV]
  const bf16* norm;       ///< [V]
  const std::int32_t* slots;
  bf16* mixed;     ///< [R, mixed_stride]
  float* squares;  ///< [R, HV, V / 16]
  int stride, mixed_stride, num_slots;
  int H, HV, K, V;
  Gate gate;
  bool decays_first, corrects_by_p, normalizes;  ///< rule gated_delta; convention fla; l2norm
  float eps, scale, beta_scale;
};

inline constexpr int kSlice = 16;  ///< columns of a slice
inline constexpr int kLaneColumns = 4;
inline constexpr int kRowStep = 256 / (kSlice / kLaneColumns);
inline constexpr int kMostRows = 256 / kRowStep;  ///< of a thread

template <class StateElement>
struct StateVector;
template <>
struct StateVector<float> {
  using Raw = float4;
  static __device__ void unpack(const Raw& raw, float (&x)[kLaneColumns]) {
    x[0] = raw.x, x[1] = raw.y, x[2] = raw.z, x[3] = raw.w;
  }
  static __device__ Raw packed(const float (&x)[kLaneColumns]) { return {x[0], x[1], x[2], x[3]}; }
};
template <>
struct StateVector<bf16> {
  using Raw = uint2;
  static __device__ void unpack(const Raw& raw, float (&x)[kLaneColumns]) {
    x[0] = low(raw.x), x[1] = high(raw.x), x[2] = low(raw.y), x[3] = high(raw.y);
  }
  static __device__ Raw packed(const float (&x)[kLaneColumns]) { return {pack(x[0], x[1]), pack(x[2], x[3])}; }
};

/// What is summed over the rows of the state; q here is the corrected query.
struct RowSums {
  float recalled[kLaneColumns] = {};  ///< S^T k
  float read[kLaneColumns] = {};      ///< S^T q
  float qq = 0, kk = 0, qk = 0;
};

/// Sums of a warp, its four lanes of a row side by side.
struct StateShared {
  float recalled[8][kSlice], read[8][kSlice];
  float qq[8], kk[8], qk[8];
};

__device__ inline RowSums sum_over_block(RowSums sums, StateShared& shared) {
  constexpr int kRowLanes = kSlice / kLaneColumns;
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const auto over_lanes = [](float& x) {
#pragma unroll
    for (int distance = kRowLanes; distance < 32; distance *= 2) x += __shfl_xor_sync(~0u, x, distance);
  };
#pragma unroll
  for (int c = 0; c < kLaneColumns; ++c) over_lanes(sums.recalled[c]), over_lanes(sums.read[c]);
  over_lanes(sums.qq), over_lanes(sums.kk), over_lanes(sums.qk);
  const int column = lane % kRowLanes * kLaneColumns;
  if (lane < kRowLanes) {
#pragma unroll
    for (int c = 0; c < kLaneColumns; ++c) {
      shared.recalled[warp][column + c] = sums.recalled[c], shared.read[warp][column + c] = sums.read[c];
    }
  }
  if (lane == 0) shared.qq[warp] = sums.qq, shared.kk[warp] = sums.kk, shared.qk[warp] = sums.qk;
  __syncthreads();
  RowSums all;
#pragma unroll
  for (int w = 0; w < 8; ++w) {
#pragma unroll
    for (int c = 0; c < kLaneColumns; ++c) {
      all.recalled[c] += shared.recalled[w][column + c], all.read[c] += shared.read[w][column + c];
    }
    all.qq += shared.qq[w], all.kk += shared.kk[w], all.qk += shared.qk[w];
  }
  return all;
}

template <class StateElement>
__global__ __launch_bounds__(256, 4) void update_state(const StateUpdate<StateElement> x) {
  using Vector = StateVector<StateElement>;
  __shared__ StateShared shared;
  const int slice = static_cast<int>(blockIdx.x), head = static_cast<int>(blockIdx.y),
            row = static_cast<int>(blockIdx.z);
  const int key_head = head / (x.HV / x.H);
  const int column = slice * kSlice + static_cast<int>(threadIdx.x) % (kSlice / kLaneColumns) * kLaneColumns;
  const int first_row = static_cast<int>(threadIdx.x) / (kSlice / kLaneColumns);
  const std::int32_t slot = x.slots[row];
  const bool is_there = slot >= 0 && slot < x.num_slots;
  StateElement* const mine =
      x.state + ((static_cast<std::int64_t>(is_there ? slot : 0) * x.HV + head) * x.K + first_row) * x.V + column;

  let_next_begin();
  typename Vector::Raw raw[kMostRows];
#pragma unroll
  for (int i = 0; i < kMostRows; ++i) {
    raw[i] = {};
    if (is_there && first_row + kRowStep * i < x.K) {
      raw[i] =
          __ldcs(reinterpret_cast<const typename Vector::Raw*>(mine + static_cast<std::int64_t>(kRowStep) * i * x.V));
    }
  }
  const float b = x.b ? x.b[key_head] : 1;
  const float correction = (x.d ? x.d[key_head] : 0) * (x.corrects_by_p ? b : 1);
  const float rate = -expf(x.A_log[head]), bias = x.dt_bias[head];
  float weight[kLaneColumns];
#pragma unroll
  for (int c = 0; c < kLaneColumns; ++c) weight[c] = as_float(x.norm[column + c]);
  wait_for_previous();
  if (!is_there) return;  // `mixed` keeps what it had: nobody reads it

  const bf16* const q = x.projected + static_cast<std::int64_t>(row) * x.stride + key_head * x.K;
  const bf16* const k = q + x.H * x.K;
  const bf16* const v = x.projected + static_cast<std::int64_t>(row) * x.stride + 2 * x.H * x.K + head * x.V + column;
  const bf16* const gates = x.projected + static_cast<std::int64_t>(row) * x.stride + 2 * x.H * x.K +
                            x.HV * x.V * (x.gate == Gate::none ? 1 : 2) + head;
  const float step = load_fresh_one(gates), a = load_fresh_one(gates + x.HV);
  const uint2 raw_values = __ldcg(reinterpret_cast<const uint2*>(v));
  uint2 raw_gate{};
  if (x.gate != Gate::none) raw_gate = __ldcg(reinterpret_cast<const uint2*>(v + x.HV * x.V));
  float keys[kMostRows], queries[kMostRows];
#pragma unroll
  for (int i = 0; i < kMostRows; ++i) {
    const bool exists = first_row + kRowStep * i < x.K;
    keys[i] = exists ? load_fresh_one(k + first_row + kRowStep * i) : 0;
    queries[i] = exists ? load_fresh_one(q + first_row + kRowStep * i) : 0;
  }
  __syncthreads();  // all loads are on their way before the first is waited for
  RowSums sums;
#pragma unroll
  for (int i = 0; i < kMostRows; ++i) {
    const float query = queries[i] - correction * keys[i];
    float state[kLaneColumns];
    Vector::unpack(raw[i], state);
#pragma unroll
    for (int c = 0; c < kLaneColumns; ++c) {
      sums.recalled[c] = fmaf(keys[i], state[c], sums.recalled[c]);
      sums.read[c] = fmaf(query, state[c], sums.read[c]);
    }
    sums.qq = fmaf(query, query, sums.qq), sums.kk = fmaf(keys[i], keys[i], sums.kk);
    sums.qk = fmaf(query, keys[i], sums.qk);
  }
  float values[kLaneColumns], gate[kLaneColumns];
  StateVector<bf16>::unpack(raw_values, values);
  StateVector<bf16>::unpack(raw_gate, gate);
  const RowSums all = sum_over_block(sums, shared);

  const float rq = x.normalizes ? rsqrtf(all.qq + x.eps) : 1, rk = x.normalizes ? rsqrtf(all.kk + x.eps) : 1;
  const float rp = x.normalizes && x.corrects_by_p ? rk : b * rk;  // p = rp k
  const float shifted = a + bias;
  const float g = rate * (fmaxf(shifted, 0) + log1pf(expf(-fabsf(shifted))));
  const float alpha = expf(g < -128 ? -128 : g), beta = x.beta_scale / (1 + expf(-step));
  const float seen = x.decays_first ? alpha : 1;
  float u[kLaneColumns], squares = 0;
  float y[kLaneColumns];
#pragma unroll
  for (int c = 0; c < kLaneColumns; ++c) {
    u[c] = beta * (values[c] - seen * rp * all.recalled[c]);
    const float o = as_float(as_bf16(x.scale * (alpha * rq * all.read[c] + u[c] * (rq * rk * all.qk))));
    squares = fmaf(o, o, squares);
    const float f = x.gate == Gate::none ? 1 : x.gate == Gate::silu ? silu(gate[c]) : sigmoid(gate[c]);
    y[c] = o * weight[c] * f;
  }
#pragma unroll
  for (int i = 0; i < kMostRows; ++i) {
    float state[kLaneColumns];
    Vector::unpack(raw[i], state);
#pragma unroll
    for (int c = 0; c < kLaneColumns; ++c) state[c] = fmaf(rk * keys[i], u[c], alpha * state[c]);
    if (first_row + kRowStep * i < x.K) {
      __stcs(reinterpret_cast<typename Vector::Raw*>(mine + static_cast<std::int64_t>(kRowStep) * i * x.V),
             Vector::packed(state));
    }
  }
  if (threadIdx.x < 32) {
#pragma unroll
    for (int distance = 1; distance < kSlice / kLaneColumns; distance *= 2) {
      squares += __shfl_xor_sync(~0u, squares, distance);
    }
    if (threadIdx.x == 0) x.squares[(static_cast<std::int64_t>(row) * x.HV + head) * kSlices + slice] = squares;
    if (threadIdx.x < kSlice / kLaneColumns) {
      bf16* const to = x.mixed + static_cast<std::int64_t>(row) * x.mixed_stride + head * x.V + column;
      *reinterpret_cast<uint2*>(to) = StateVector<bf16>::packed(y);
    }
  }
}

}  // namespace comba::model_step::cuda
