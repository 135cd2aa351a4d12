#pragma once

#include "operators/model_step/cuda/bf16.cuh"
#include "operators/model_step/cuda/epilogues.cuh"
#include "operators/model_step/cuda/inputs.cuh"
#include "operators/model_step/model_step.h"

/// The delta rule for one token and some columns of a head's state (src/operators/delta_rule/README.md, sections 1 and
/// 2), gates, normalisation of q and k, and what of the gated norm behind it these columns can do:
///
///     u = beta (v - seen S^T p);   o = scale (alpha S^T q + u (k . q));   S = alpha S + k u^T;   y = o f(gate) w
///
/// Both products read the old state, and need q and k only up to a factor: so that they, and the norms of q and k, are
/// sums over the rows that are formed at the same time. A block of 256 threads has some columns of all rows, a thread 4
/// of them; who has which rows, and how they come and go, is the matter of the kernel. Numerics: fp32, sums in an order
/// that depends on nothing but K: rows r, r + kRowStep, r + 2 kRowStep .. of each r; those of 8 neighbours as a tree;
/// then by rising r.
namespace comba::model_step::cuda {

template <class StateElement>
struct StateUpdate {
  StateElement* state;    ///< [S, HV, V / 16, K, 16]
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

inline constexpr int kSlice = kStateColumns;
inline constexpr int kLaneColumns = 4;
inline constexpr int kRowStep = 256 / (kSlice / kLaneColumns);
inline constexpr int kMostRows = 256 / kRowStep;  ///< of a thread with a slice

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

  /// One more row.
  __device__ void add(float key, float query, const float (&state)[kLaneColumns]) {
#pragma unroll
    for (int c = 0; c < kLaneColumns; ++c) {
      recalled[c] = fmaf(key, state[c], recalled[c]), read[c] = fmaf(query, state[c], read[c]);
    }
    qq = fmaf(query, query, qq), kk = fmaf(key, key, kk), qk = fmaf(query, key, qk);
  }
  __device__ void add(const RowSums& other) {
#pragma unroll
    for (int c = 0; c < kLaneColumns; ++c) recalled[c] += other.recalled[c], read[c] += other.read[c];
    qq += other.qq, kk += other.kk, qk += other.qk;
  }
};

/// Sums of each warp.
template <int kColumns>
struct WarpSums {
  float4 recalled[8][kColumns / kLaneColumns], read[8][kColumns / kLaneColumns];
  float qq[8], kk[8], qk[8];
};

/// The lanes of a row are side by side.
template <int kColumns>
__device__ RowSums sum_over_block(RowSums sums, WarpSums<kColumns>& shared) {
  constexpr int kRowLanes = kColumns / kLaneColumns;
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const auto over_lanes = [](float& x) {
#pragma unroll
    for (int distance = kRowLanes; distance < 32; distance *= 2) x += __shfl_xor_sync(~0u, x, distance);
  };
#pragma unroll
  for (int c = 0; c < kLaneColumns; ++c) over_lanes(sums.recalled[c]), over_lanes(sums.read[c]);
  over_lanes(sums.qq), over_lanes(sums.kk), over_lanes(sums.qk);
  const int place = lane % kRowLanes;
  if (lane < kRowLanes) {
    shared.recalled[warp][place] = StateVector<float>::packed(sums.recalled);
    shared.read[warp][place] = StateVector<float>::packed(sums.read);
  }
  if (lane == 0) shared.qq[warp] = sums.qq, shared.kk[warp] = sums.kk, shared.qk[warp] = sums.qk;
  __syncthreads();
  RowSums all;
#pragma unroll
  for (int w = 0; w < 8; ++w) {
    RowSums of_warp;
    StateVector<float>::unpack(shared.recalled[w][place], of_warp.recalled);
    StateVector<float>::unpack(shared.read[w][place], of_warp.read);
    of_warp.qq = shared.qq[w], of_warp.kk = shared.kk[w], of_warp.qk = shared.qk[w];
    all.add(of_warp);
  }
  return all;
}

/// What a head has for all texts, and its columns from `column` on.
struct HeadConstants {
  float b, correction, rate, bias;
  uint2 weight;
};
template <class StateElement>
__device__ HeadConstants head_constants(const StateUpdate<StateElement>& x, int head, int column) {
  const int key_head = head / (x.HV / x.H);
  const float b = x.b ? x.b[key_head] : 1;
  return {.b = b,
          .correction = (x.d ? x.d[key_head] : 0) * (x.corrects_by_p ? b : 1),
          .rate = -expf(x.A_log[head]),
          .bias = x.dt_bias[head],
          .weight = *reinterpret_cast<const uint2*>(x.norm + column)};
}

/// What a text has for a head: decay and step size, from their logits.
struct Gates {
  float alpha, beta;
};
template <class StateElement>
__device__ Gates gates_of(const StateUpdate<StateElement>& x, const HeadConstants& head, float a, float step) {
  const float shifted = a + head.bias;
  const float g = head.rate * (fmaxf(shifted, 0) + log1pf(expf(-fabsf(shifted))));
  return {expf(g < -128 ? -128 : g), x.beta_scale / (1 + expf(-step))};
}

/// What becomes of 4 columns: of row r of the state alpha S + key_scale k_r u.
struct Outcome {
  float alpha, key_scale;
  float u[kLaneColumns], y[kLaneColumns];
  float squares = 0;  ///< sum of o^2

  __device__ void update(float key, float (&state)[kLaneColumns]) const {
#pragma unroll
    for (int c = 0; c < kLaneColumns; ++c) state[c] = fmaf(key_scale * key, u[c], alpha * state[c]);
  }
};
template <class StateElement>
__device__ Outcome outcome_of(const StateUpdate<StateElement>& x, const RowSums& all, const HeadConstants& head,
                              const Gates& gates, const uint2& raw_values, const uint2& raw_gate) {
  const float rq = x.normalizes ? rsqrtf(all.qq + x.eps) : 1, rk = x.normalizes ? rsqrtf(all.kk + x.eps) : 1;
  const float rp = x.normalizes && x.corrects_by_p ? rk : head.b * rk;  // p = rp k
  const float seen = x.decays_first ? gates.alpha : 1;
  float values[kLaneColumns], gate[kLaneColumns], weight[kLaneColumns];
  StateVector<bf16>::unpack(raw_values, values);
  StateVector<bf16>::unpack(raw_gate, gate);
  StateVector<bf16>::unpack(head.weight, weight);
  Outcome outcome{.alpha = gates.alpha, .key_scale = rk, .u = {}, .y = {}};
#pragma unroll
  for (int c = 0; c < kLaneColumns; ++c) {
    const float u = gates.beta * (values[c] - seen * rp * all.recalled[c]);
    const float o = as_float(as_bf16(x.scale * (gates.alpha * rq * all.read[c] + u * (rq * rk * all.qk))));
    outcome.squares = fmaf(o, o, outcome.squares);
    const float f = x.gate == Gate::none ? 1 : x.gate == Gate::silu ? silu(gate[c]) : sigmoid(gate[c]);
    outcome.u[c] = u, outcome.y[c] = o * weight[c] * f;
  }
  return outcome;
}

/// Writes y, and the sum of squares of each slice: from the lanes of the first warp that have its first row.
template <int kColumns, class StateElement>
__device__ void write_outcome(const StateUpdate<StateElement>& x, Outcome outcome, int row, int head, int column) {
  const int thread = static_cast<int>(threadIdx.x);
  if (thread >= 32) return;
  constexpr int kSliceLanes = kSlice / kLaneColumns;
#pragma unroll
  for (int distance = 1; distance < kSliceLanes; distance *= 2) {
    outcome.squares += __shfl_xor_sync(~0u, outcome.squares, distance);
  }
  if (thread >= kColumns / kLaneColumns) return;
  const std::int64_t place = static_cast<std::int64_t>(row) * x.HV + head;
  if (thread % kSliceLanes == 0) x.squares[place * kSlices + column / kSlice] = outcome.squares;
  bf16* const to = x.mixed + place_in_rows(row, head * x.V + column, x.mixed_stride);
  *reinterpret_cast<uint2*>(to) = StateVector<bf16>::packed(outcome.y);
}

}  // namespace comba::model_step::cuda
