#pragma once

#include <cuda_bf16.h>

#include "operators/delta_rule/cuda/sm90/backward.h"
#include "operators/delta_rule/cuda/sm90/gates.cuh"
#include "operators/delta_rule/cuda/sm90/tiles.cuh"

/// Of the backward pass: the gradients of a chunk's step sizes and decays, from sums over rows and over pairs of
/// tokens.
///
///     dg_t = e^{G_C} <dS+, S> + sum_{i<t} s_i
///          + sum_{i>=t} (sum_{j<i} X_ij R_ij - sum_{m>i} (X_mi R_mi + beta_m Y_mi A_mi) + <q^_i, scale e^{G_i} (dO
///          S^T)_i>)
///          + sum_{i>t}  (sum_{j<i} beta_i Y_ij A_ij - <p_i, beta_i e^{G0_i} (dE S^T)_i>)         (gated_delta: i >= t)
///
/// with s_i = <k^_i, e^{G_C - G_i} (Vn dS+^T)_i>. Terms that are added at one token and taken back at another are left
/// out: the diagonals, s in dG_C, and for comba the pairs (i, i - 1), where E is 1. Strong decay would leave nothing
/// but their rounding.
namespace comba::delta_rule::cuda::sm90 {

/// Sums of a chunk, without the factors of their rows; parts of them by warpgroup or by warp of a warpgroup.
template <int kGroups>
struct RowSums {
  float query[kGroups][kChunk];             ///< <q^_i, (dO S^T)_i>
  float feedback[kGroups][kChunk];          ///< <k^_i, (dE S^T)_i>
  float write[kGroups][kChunk];             ///< <k^_i, (Vn dS+^T)_i>
  float later_read[4][kChunk];              ///< sum_{j<i} X_ij R_ij
  float later_feedback[4][kChunk];          ///< sum_{j<i} Y_ij E_ij <k^_i, k^_j>
  float earlier_read[kGroups][kChunk];      ///< sum_{i>j} X_ij R_ij
  float earlier_feedback[kGroups][kChunk];  ///< sum_{i>j} beta_i Y_ij E_ij <k^_i, k^_j>; comba: i > j + 1
  float neighbour[kChunk + 1];              ///< Y_ij E_ij <k^_i, k^_j> of j = i - 1
  float own_read[kChunk];                   ///< X_ii R_ii
  float own[kChunk];                        ///< <dE_i, Vn_i>
  float q_dot[kChunk], k_dot[kChunk];       ///< <q^_i, dq^_i>, <k^_i, dk^_i> of all value heads so far
  float state[4 * kGroups];                 ///< <dS+, S>
  double totals[2][3];                      ///< of two warps
  float parts[2][2];
  KeyHeadPart key_parts[4 * kGroups];
};

template <int kParts>
__device__ float sum_of(const float (&parts)[kParts][kChunk], int row) {
  float sum = parts[0][row];
#pragma unroll
  for (int i = 1; i < kParts; ++i) sum += parts[i][row];
  return sum;
}

__device__ inline void store_gate(const GateGradient& to, std::int64_t at, float x) {
  if (to.dtype == DType::f32) static_cast<float*>(to.data)[at] = x;
  if (to.dtype == DType::bf16) static_cast<__nv_bfloat16*>(to.data)[at] = __float2bfloat16(x);
  if (to.dtype == DType::f16) static_cast<__half*>(to.data)[at] = __float2half(x);
}

/// What a token contributes; zero for absent ones.
struct TokenSums {
  float feedback, later_feedback;  ///< e^{G0_i} <k^_i, (dE S^T)_i>, and as in RowSums
  float own;                       ///< <dE_i, Vn_i>
  double of_G, of_G0, write;       ///< the terms of dg_t that count for i >= t, for i > t or i >= t, for i < t
};

/// For the first 64 threads, one a token. Adds to q_dot and k_dot, which `first` clears.
template <int kGroups>
__device__ TokenSums token_sums(const Arguments& x, const Chunk& chunk, const KeyHead& head, const ChunkGates& gates,
                                RowSums<kGroups>& sums, bool first) {
  const int i = static_cast<int>(threadIdx.x);
  TokenSums t = {};
  if (first) sums.q_dot[i] = sums.k_dot[i] = 0;
  if (i >= chunk.count) return t;
  const float beta = gates.beta[i];
  t.feedback = decay_from_start(gates.G0[i]) * sum_of(sums.feedback, i);
  t.later_feedback = sum_of(sums.later_feedback, i);
  t.own = sums.own[i];
  const float query = x.scale * decay_from_start(gates.G[i]) * sum_of(sums.query, i);
  const float write = decay_between(gates.end, gates.G[i]) * sum_of(sums.write, i);
  const float later_read = sum_of(sums.later_read, i), earlier_read = sum_of(sums.earlier_read, i);
  const float earlier_feedback = sum_of(sums.earlier_feedback, i);
  const float left_out = x.gated_delta ? 0 : sums.neighbour[i];
  const float left_out_next = x.gated_delta || i + 1 >= chunk.count ? 0 : gates.beta[i + 1] * sums.neighbour[i + 1];
  t.of_G = static_cast<double>(later_read) - earlier_read - head.b * earlier_feedback + query;
  t.of_G0 = static_cast<double>(beta * head.b) * (t.later_feedback - left_out - t.feedback);
  t.write = write;
  sums.q_dot[i] += query + later_read + sums.own_read[i];
  sums.k_dot[i] += write + earlier_read + sums.own_read[i] +
                   head.b * (beta * (t.later_feedback - t.feedback) + earlier_feedback + left_out_next);
  return t;
}

/// For the first 64 threads, one a token. `error` is called for a token whose beta is 0 and tells <dE_i, V_i>. Returns
/// what the token adds to the gradient of b as factor of the feedback.
template <int kGroups, class Error>
__device__ float gate_gradients(const BackwardArguments& y, const Chunk& chunk, int slot, int value,
                                const KeyHead& head, const ChunkGates& gates, const TokenSums& t,
                                RowSums<kGroups>& sums, const Error& error) {
  constexpr int kBarrier = 1, kTokens = kChunk;
  const Arguments& x = y.forward;
  const int i = static_cast<int>(threadIdx.x), lane = i % 32, warp = i / 32;
  const bool present = i < chunk.count;
  RawGates raw;
  raw.load(x, chunk, value, threadIdx.x);
  double suffix = t.of_G, suffix0 = t.of_G0, prefix = t.write;
#pragma unroll
  for (int distance = 1; distance < 32; distance *= 2) {
    const double above = __shfl_down_sync(~0u, suffix, distance), above0 = __shfl_down_sync(~0u, suffix0, distance);
    const double below = __shfl_up_sync(~0u, prefix, distance);
    if (lane + distance < 32) suffix += above, suffix0 += above0;
    if (lane >= distance) prefix += below;
  }
  if (lane == 0) sums.totals[warp][0] = suffix, sums.totals[warp][1] = suffix0;
  if (lane == 31) sums.totals[warp][2] = prefix;
  barrier_wait(kBarrier, kTokens);
  if (warp == 0) suffix += sums.totals[1][0], suffix0 += sums.totals[1][1];
  if (warp == 1) prefix += sums.totals[0][2];
  float state = 0;
#pragma unroll
  for (int part = 0; part < 4 * kGroups; ++part) state += sums.state[part];
  const double dg =
      decay_from_start(gates.end) * state + (prefix - t.write) + suffix + (x.gated_delta ? suffix0 : suffix0 - t.of_G0);

  const std::int64_t token = chunk.begin + i;
  const float beta = gates.beta[i];
  float d_A_log = 0, d_bias = 0;
  if (present) {
    if (y.d_step.data) {
      float d = t.own * (1 - beta / x.beta_scale);
      if (x.beta_given) d = beta != 0 ? t.own / beta : error(i) + head.b * (t.later_feedback - t.feedback);
      store_gate(y.d_step, chunk.batch * y.d_step.stride[0] + token * y.d_step.stride[1] + value * y.d_step.stride[2],
                 d);
    }
    const float a = RawGates::value(raw.decay, x.decay.dtype) + raw.bias;
    float d = static_cast<float>(dg);
    if (x.A_log.data) {
      const float rate = -expf(raw.A_log), g = rate * (fmaxf(a, 0) + log1pf(expf(-fabsf(a))));
      if (g < -128) d = 0;
      d_A_log = d * fmaxf(g, -128);
      d *= rate / (1 + expf(-a));
      d_bias = d;
    } else if (a < -128) {
      d = 0;
    }
    if (y.d_decay.data) {
      store_gate(y.d_decay,
                 chunk.batch * y.d_decay.stride[0] + token * y.d_decay.stride[1] + value * y.d_decay.stride[2], d);
    }
  }
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) {
    d_A_log += __shfl_xor_sync(~0u, d_A_log, distance);
    d_bias += __shfl_xor_sync(~0u, d_bias, distance);
  }
  if (lane == 0) sums.parts[warp][0] = d_A_log, sums.parts[warp][1] = d_bias;
  barrier_wait(kBarrier, kTokens);
  if (i == 0) {
    y.value_parts[static_cast<std::int64_t>(slot) * x.HV + value] = {sums.parts[0][0] + sums.parts[1][0],
                                                                     sums.parts[0][1] + sums.parts[1][1]};
  }
  return beta * (t.later_feedback - t.feedback);
}

}  // namespace comba::delta_rule::cuda::sm90
