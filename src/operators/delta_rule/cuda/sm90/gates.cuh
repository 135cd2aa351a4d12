#pragma once

#include <cuda_fp16.h>

#include "operators/delta_rule/cuda/sm90/sequences.cuh"

/// The gates of a chunk: step sizes, decays, and the factors of rows that follow from them.
namespace comba::delta_rule::cuda::sm90 {

/// A sum of log decays times log2(e), as two floats: differences of neighbours stay exact where the sum is large.
struct LogDecay {
  float high, low;

  LogDecay() = default;
  __device__ explicit LogDecay(double sum) : high(static_cast<float>(sum)), low(static_cast<float>(sum - high)) {}
};

/// 2^x by the special function unit.
__device__ inline float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

/// e^{to - from}, where to <= from but for rounding. NaN becomes 1: for what `decay_from_start` multiplies as well.
__device__ inline float decay_between(LogDecay to, LogDecay from) {
  return exp2_fast(fminf(to.high - from.high + (to.low - from.low), 0));
}

/// e^{to}, the decay since the chunk began; NaN stays NaN.
__device__ inline float decay_from_start(LogDecay to) { return exp2_fast(to.high + to.low); }

/// What is the same for all tokens of a key head.
struct KeyHead {
  float b;         ///< p = b k^, or 1 with a full p
  float strength;  ///< of the correction q - strength k

  __device__ KeyHead(const Arguments& x, int key) {
    b = x.b.data ? x.b.data[key * x.b.stride] : 1;
    const float d = x.d.data ? x.d.data[key * x.d.stride] : 0;
    strength = x.fla ? d * b : d;
    if (x.fla && x.l2norm) b = 1;
  }
};

struct ChunkGates {
  LogDecay G[kChunk], G0[kChunk];
  float beta[kChunk];
  LogDecay end;  ///< G of the last token
};

/// The gates of one token a thread (two warps; other threads have a token that does not exist), as they lie in memory:
/// loaded long before they are used.
struct RawGates {
  unsigned step, decay;
  float A_log, bias;  ///< g = -e^{A_log} softplus(a + bias)

  static __device__ unsigned bits(const Gate& x, const Chunk& chunk, int token, int head) {
    const std::int64_t at = chunk.batch * x.stride[0] + (chunk.begin + token) * x.stride[1] + head * x.stride[2];
    if (x.dtype == DType::f32) return static_cast<const unsigned*>(x.data)[at];
    return static_cast<const unsigned short*>(x.data)[at];
  }

  static __device__ float value(unsigned bits, DType dtype) {
    if (dtype == DType::f32) return __uint_as_float(bits);
    if (dtype == DType::bf16) return __uint_as_float(bits << 16);
    return __half2float(__ushort_as_half(static_cast<unsigned short>(bits)));
  }

  __device__ void load(const Arguments& x, const Chunk& chunk, int head, int token) {
    if (token >= chunk.count) return;
    step = bits(x.step, chunk, token, head);
    decay = bits(x.decay, chunk, token, head);
    A_log = x.A_log.data ? x.A_log.data[head * x.A_log.stride] : 0;
    bias = x.A_log.data ? x.dt_bias.data[head * x.dt_bias.stride] : 0;
  }

  /// Sums in double: a token's decay may be anything from 0 to -128. meet() is a barrier of all threads that call this.
  template <class Meet>
  __device__ void resolve(const Arguments& x, const Chunk& chunk, int token, ChunkGates& gates, double& first_half,
                          const Meet& meet) const {
    const int lane = token % 32;
    float beta = 0, g = 0;
    if (token < chunk.count) {
      const float s = value(step, x.step.dtype), a = value(decay, x.decay.dtype) + bias;
      beta = x.beta_given ? s : x.beta_scale / (1 + expf(-s));
      g = x.A_log.data ? -expf(A_log) * (fmaxf(a, 0) + log1pf(expf(-fabsf(a)))) : a;
      g = g < -128 ? -128 : g;
    }
    double G = g * 1.4426950408889634;
    if (token < kChunk) {
#pragma unroll
      for (int distance = 1; distance < 32; distance *= 2) {
        const double before = __shfl_up_sync(~0u, G, distance);
        if (lane >= distance) G += before;
      }
      if (token == 31) first_half = G;
    }
    meet();
    if (token >= kChunk) return;
    if (token >= 32) G += first_half;
    gates.beta[token] = beta;
    gates.G[token] = LogDecay(G);
    gates.G0[token] = LogDecay(x.gated_delta ? G : G - g * 1.4426950408889634);
    if (token == kChunk - 1) gates.end = gates.G[token];
  }
};

/// What the backward pass reads again of a chunk of a value head.
struct alignas(16) SavedGates {
  ChunkGates gates;
  float q_norm[kChunk], k_norm[kChunk];
};
static_assert(sizeof(SavedGates) == kSavedGatesBytes);

/// For token i; 64 threads.
__device__ inline void save_gates(const ChunkGates& gates, const float* q_norm, const float* k_norm, int i,
                                  SavedGates& to) {
  if (i >= kChunk) return;
  to.gates.G[i] = gates.G[i];
  to.gates.G0[i] = gates.G0[i];
  to.gates.beta[i] = gates.beta[i];
  to.q_norm[i] = q_norm[i];
  to.k_norm[i] = k_norm[i];
  if (i == 0) to.gates.end = gates.end;
}

/// Factors of row i for scan, if there is one; those of absent tokens are zero, or finite where a zero row makes up for
/// it. The norms are reciprocals; p_norm is k_norm where p = b k.
__device__ inline void write_factors(const Arguments& x, const Chunk& chunk, const KeyHead& head,
                                     const ChunkGates& gates, const float* q_norm, const float* k_norm,
                                     const float* p_norm, int i, ChunkFactors& to) {
  if (i >= kChunk) return;
  const bool present = i < chunk.count;
  to.feedback[i] = present ? head.b * p_norm[i] * decay_from_start(gates.G0[i]) : 0;
  to.beta[i] = gates.beta[i];
  to.write[i] = present ? k_norm[i] * decay_between(gates.end, gates.G[i]) : 0;
  to.query[i] = present ? x.scale * q_norm[i] * decay_from_start(gates.G[i]) : 0;
  if (i == 0) to.decay = decay_from_start(gates.end);
}

}  // namespace comba::delta_rule::cuda::sm90
