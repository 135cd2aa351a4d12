#pragma once

#include "operators/delta_rule/cuda/generic/arguments.cuh"

/// What the tokens bring to the recurrence: loads, correction, l2norm and gates, a warp a token (README.md section 3).
namespace comba::delta_rule::cuda::generic {

constexpr int kWarpColumns = 8;                  ///< columns of the state a warp holds
constexpr int kSliceColumns = 4 * kWarpColumns;  ///< and a block
constexpr int kStateThreads = 128;               ///< the lower warps
constexpr int kThreads = 256;
constexpr int kTile = 8;  ///< tokens prepared together

/// All warps: two roles meet here from two places, which __syncthreads does not allow.
inline __device__ void tile_barrier() { __barrier_sync(0); }

/// What a token brings besides its rows.
struct TokenGates {
  float alpha, seen, beta, k_dot_q;

  /// u = beta (v - seen S^T p), of a column.
  __device__ float write(float v, float recalled) const { return beta * fmaf(-seen, recalled, v); }
  /// alpha S^T q + u (k . q): the output, not scaled.
  __device__ float output(float u, float read) const { return fmaf(alpha, read, u * k_dot_q); }
};

/// kTile tokens, ready to be applied; K is padded with zeros to kKeys.
template <int kKeys>
struct Tile {
  float q[kTile][kKeys];  ///< corrected, normalised, not scaled
  float k[kTile][kKeys];
  float p[kTile][kKeys];
  float v[kTile][kSliceColumns];
  TokenGates gates[kTile];
};

/// One value head, or rather a slice of it, of one sequence.
struct Slice {
  int head, key, feedback, column;
  std::int64_t sequence, batch, begin, end;

  /// All columns of a head; each batch row is a sequence.
  __device__ Slice(const Arguments& x, int batch, int head)
      : head(head),
        key(head / x.group),
        feedback(x.value_heads_per_p > 0 ? head / x.value_heads_per_p : 0),
        column(0),
        sequence(batch),
        batch(batch),
        begin(0),
        end(x.T) {}

  __device__ explicit Slice(const Arguments& x) {
    const std::int64_t block = blockIdx.x;
    column = static_cast<int>(block % x.num_slices) * kSliceColumns;
    head = static_cast<int>(block / x.num_slices % x.HV);
    sequence = block / x.num_slices / x.HV;
    key = head / x.group;
    feedback = x.value_heads_per_p > 0 ? head / x.value_heads_per_p : 0;
    batch = sequence, begin = 0, end = x.T;
    if (x.cu_seqlens == nullptr) return;
    const auto border = [&](std::int64_t n) -> std::int64_t {
      if (x.cu_seqlens_are_i64) return static_cast<const std::int64_t*>(x.cu_seqlens)[n];
      return static_cast<const std::int32_t*>(x.cu_seqlens)[n];
    };
    // Borders cannot be checked before the launch; whatever they say, no token outside of the tensors is touched.
    batch = 0;
    begin = max(std::int64_t{0}, border(sequence));
    end = min(x.T, border(sequence + 1));
  }
};

/// What is the same for all tokens of a head.
struct HeadConstants {
  float b, strength;  ///< p = b k, and the correction q - strength k (or p)
  float rate, bias;   ///< g = rate softplus(a + bias)

  __device__ HeadConstants(const Arguments& x, const Slice& s) {
    b = x.b ? x.b[s.key * x.b_stride] : 1;
    const float d = x.d ? x.d[s.key * x.d_stride] : 0;
    strength = x.fla && x.p.data == nullptr ? d * b : d;
    rate = x.A_log ? -expf(x.A_log[s.head * x.A_log_stride]) : 0;
    bias = x.A_log ? x.dt_bias[s.head * x.dt_bias_stride] : 0;
    if (x.fla && x.l2norm) b = 1;
  }
};

/// Elements lane, lane + 32, ... of a row as they lie in memory, zeros beyond K.
template <class T, int kElements>
struct RawRow {
  unsigned at[kElements];

  __device__ void load(const Strided& x, const Slice& s, std::int64_t token, int head, int K) {
    const T* from = static_cast<const T*>(x.data) + s.batch * x.stride[0] + token * x.stride[1] + head * x.stride[2];
#pragma unroll
    for (int i = 0; i < kElements; ++i) {
      const int element = static_cast<int>(threadIdx.x % 32) + 32 * i;
      at[i] = element < K ? load_bits(from + element) : 0;
    }
  }
};

/// The same, converted.
template <int kElements>
struct Row {
  float at[kElements];

  template <class T>
  __device__ explicit Row(const RawRow<T, kElements>& raw) {
#pragma unroll
    for (int i = 0; i < kElements; ++i) at[i] = as_float<T>(raw.at[i]);
  }

  __device__ void add_scaled(float factor, const Row& other) {
#pragma unroll
    for (int i = 0; i < kElements; ++i) at[i] += factor * other.at[i];
  }

  __device__ void store_scaled(float factor, float* to) const {
#pragma unroll
    for (int i = 0; i < kElements; ++i) to[threadIdx.x % 32 + 32 * i] = factor * at[i];
  }
};

template <int kElements>
__device__ float dot(const Row<kElements>& x, const Row<kElements>& y) {
  float sum = 0;
#pragma unroll
  for (int i = 0; i < kElements; ++i) sum += x.at[i] * y.at[i];
  return warp_sum(sum);
}

/// One token as a warp holds it between its loads and its preparation: long enough for the loads to arrive.
template <class T, int kKeys>
struct RawToken {
  RawRow<T, kKeys / 32> raw_q, raw_k, raw_p;
  RawGate raw_step, raw_decay;

  __device__ void load(const Arguments& x, const Slice& s, std::int64_t token) {
    raw_q.load(x.q, s, token, s.key, x.K);
    raw_k.load(x.k, s, token, s.key, x.K);
    raw_p = raw_k;
    if (x.p.data) raw_p.load(x.p, s, token, s.feedback, x.K);
    raw_step.load(x.step, s.batch, token, s.head);
    raw_decay.load(x.decay, s.batch, token, s.head);
  }

  /// README.md section 3.
  __device__ void prepare(const Arguments& x, const HeadConstants& head, float* to_q, float* to_k, float* to_p,
                          TokenGates& gates) const {
    Row<kKeys / 32> q(raw_q), k(raw_k), p(raw_p);
    const bool p_given = x.p.data != nullptr;
    if (x.fla && p_given) {
      q.add_scaled(-head.strength, p);
    } else {
      q.add_scaled(-head.strength, k);
    }
    const float qq = dot(q, q), kk = dot(k, k), kq = dot(k, q), pp = x.fla && p_given ? dot(p, p) : 0;
    const float rq = x.l2norm ? 1 / sqrtf(qq + x.l2norm_eps) : 1;
    const float rk = x.l2norm ? 1 / sqrtf(kk + x.l2norm_eps) : 1;
    const float rp = x.l2norm && x.fla ? 1 / sqrtf(pp + x.l2norm_eps) : 1;
    q.store_scaled(rq, to_q);
    k.store_scaled(rk, to_k);
    p_given ? p.store_scaled(rp, to_p) : k.store_scaled(head.b * rk, to_p);
    if (threadIdx.x % 32 > 0) return;
    const float step = raw_step.value(x.step.dtype), decay = raw_decay.value(x.decay.dtype);
    const float a = decay + head.bias;
    const float g = x.A_log ? head.rate * (fmaxf(a, 0) + log1pf(expf(-fabsf(a)))) : decay;
    const float alpha = expf(g < -128 ? -128 : g);  // NaN must stay NaN, which fmaxf would drop
    gates.alpha = alpha;
    gates.seen = x.gated_delta ? alpha : 1;
    gates.beta = x.beta_given ? step : x.beta_scale / (1 + expf(-step));
    gates.k_dot_q = rk * rq * kq;
  }
};

/// The upper warps: four of them, each with every fourth token. load() is one tile ahead of prepare().
template <class T, int kKeys>
struct Preparation {
  static constexpr int kTokens = kTile / 4;
  RawToken<T, kKeys> raw[kTokens];
  unsigned raw_v[kTokens];

  static __device__ int place(int i) { return (static_cast<int>(threadIdx.x) - kStateThreads) / 32 + 4 * i; }

  /// A last tile that is not full is filled with its last token: a branch would make each token wait for the one
  /// before.
  __device__ void load(const Arguments& x, const Slice& s, std::int64_t first) {
    if (first >= s.end) return;
#pragma unroll
    for (int i = 0; i < kTokens; ++i) {
      const std::int64_t token = min(first + place(i), s.end - 1);
      raw[i].load(x, s, token);
      const int column = s.column + static_cast<int>(threadIdx.x % 32);
      const std::int64_t row = s.batch * x.v.stride[0] + token * x.v.stride[1] + s.head * x.v.stride[2];
      raw_v[i] = column < x.V ? load_bits(static_cast<const T*>(x.v.data) + row + column) : 0;
    }
  }

  __device__ void prepare(const Arguments& x, const HeadConstants& head, Tile<kKeys>& tile) const {
#pragma unroll
    for (int i = 0; i < kTokens; ++i) {
      const int to = place(i);
      raw[i].prepare(x, head, tile.q[to], tile.k[to], tile.p[to], tile.gates[to]);
      tile.v[to][threadIdx.x % 32] = as_float<T>(raw_v[i]);
    }
  }
};

}  // namespace comba::delta_rule::cuda::generic
