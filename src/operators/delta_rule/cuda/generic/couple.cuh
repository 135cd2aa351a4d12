#pragma once

#include "operators/delta_rule/cuda/generic/chunk.cuh"

/// First kernel of the chunk form: all of a chunk that does not need the state (README.md section 10).
///
///     A_ij = <p_i, k_j> e^{G0_i - G_j}   (i > j)               N = -A (I + diag(beta) A)^-1
///     R_ij = scale <q_i, k_j> e^{G_i - G_j}   (i >= j)       R M = R + R diag(beta) N
///
/// Grid: one block for each value head of each slot. Block: 256 threads.
/// Shared memory: tiles of q, k and p; in their place R and A, and N after it; the factors of the rows.
/// Numerics: products of tiles in fp32; N in fp32 by substitution, R M in fp32; both are rounded once.
namespace comba::delta_rule::cuda::generic {

using CouplingRow = float[SharedTile<float>::kStride];

template <class Element>
struct CoupleShared {
  union {
    struct {
      SharedTile<Element> q, k, p;
    };
    struct {
      SharedTile<float> a;     ///< A, then N
      SharedTile<float> read;  ///< R diag(beta)
      CouplingRow scratch[16];
    };
  };
  RowFactors rows;
  double first_half;
};

/// beta, g and the sums of g, one token a thread; sums in double, since a decay may be anything from 0 to -128.
inline __device__ void load_gates(const Arguments& x, const Chunk& chunk, int head, RowFactors& rows,
                                  double& first_half) {
  constexpr double kLog2e = 1.4426950408889634;
  const int i = static_cast<int>(threadIdx.x), lane = i % 32;
  float beta = 0, g = 0;
  if (i < chunk.count) {
    const float s = gate_of(x.step, chunk, i, head), decay = gate_of(x.decay, chunk, i, head);
    beta = x.beta_given ? s : x.beta_scale / (1 + expf(-s));
    g = decay;
    if (x.A_log) {
      const float a = decay + x.dt_bias[head * x.dt_bias_stride];
      g = -expf(x.A_log[head * x.A_log_stride]) * (fmaxf(a, 0) + log1pf(expf(-fabsf(a))));
    }
    g = g < -128 ? -128 : g;  // NaN must stay NaN, which fmaxf would drop
  }
  double G = g * kLog2e;
  if (i < kSide) {
    for (int distance = 1; distance < 32; distance *= 2) {
      const double before = __shfl_up_sync(~0u, G, distance);
      if (lane >= distance) G += before;
    }
    if (i == 31) first_half = G;
  }
  __syncthreads();
  if (i < kSide) {
    if (i >= 32) G += first_half;
    const double G0 = x.gated_delta ? G : G - g * kLog2e;
    rows.beta[i] = beta;
    rows.g[i] = g;
    rows.G[0][i] = static_cast<float>(G);
    rows.G[1][i] = static_cast<float>(G - rows.G[0][i]);
    rows.G0[0][i] = static_cast<float>(G0);
    rows.G0[1][i] = static_cast<float>(G0 - rows.G0[0][i]);
  }
  __syncthreads();
}

/// Adds the squares of a tile's row; four threads a row, which the caller adds up.
template <class Element>
__device__ void add_squares(const SharedTile<Element>& tile, float& sum) {
#pragma unroll
  for (int i = 0; i < kSide / 4; i += 8) {
    const Piece x = load_piece(&tile.at[threadIdx.x / 4][threadIdx.x % 4 * 8 + 4 * i]);
#pragma unroll
    for (const float value : x.at) sum = fmaf(value, value, sum);
  }
}

/// Splits 1 / sqrt(squares + eps) into a power of two and the rest.
inline __device__ void split_norm(bool normalised, float squares, float eps, float& scale, float& rest) {
  const float norm = 1 / sqrtf(squares + eps);
  scale = normalised ? __uint_as_float(__float_as_uint(norm) & 0x7f800000) : 1;
  rest = normalised ? norm / scale : 1;
}

/// Sums of squares of the rows, to their factors.
inline __device__ void write_factors(const Arguments& x, const Strengths& strengths, float qq, float kk, float pp,
                                     RowFactors& rows) {
  for (int lane = 1; lane < 4; lane *= 2) {
    qq += __shfl_xor_sync(~0u, qq, lane);
    kk += __shfl_xor_sync(~0u, kk, lane);
    pp += __shfl_xor_sync(~0u, pp, lane);
  }
  const int i = threadIdx.x / 4, last = kSide - 1;
  if (threadIdx.x % 4 == 0) {
    split_norm(x.l2norm, qq, x.l2norm_eps, rows.q_scale[i], rows.q_norm[i]);
    split_norm(x.l2norm, kk, x.l2norm_eps, rows.k_scale[i], rows.k_norm[i]);
    rows.p_scale[i] = rows.k_scale[i], rows.p_norm[i] = rows.k_norm[i];
    if (x.p.data) split_norm(x.l2norm && x.fla, pp, x.l2norm_eps, rows.p_scale[i], rows.p_norm[i]);
    rows.query[i] = x.scale * rows.q_norm[i] * decay_from_start(rows.G, i);
    rows.feedback[i] = strengths.b * rows.p_norm[i] * decay_from_start(rows.G0, i);
    rows.write[i] = rows.k_norm[i] * decay_between(rows.G, last, rows.G, i);
    if (i == 0) rows.decay = decay_from_start(rows.G, last);
  }
  __syncthreads();
}

/// Solves (I + A diag(beta)) N = -A in place, a block of 16 rows after the other:
///
///     T = A_IJ + sum_{J<=L<I} A_IL diag(beta) N_LJ  (J < I),   N_IJ = -T - N_II diag(beta) T
inline __device__ void solve(CouplingRow* a, const float* beta, CouplingRow* scratch) {
  constexpr int kBlock = 16;
  const int thread = static_cast<int>(threadIdx.x);
  // N_II by substitution: a thread has a column.
  if (thread < kSide) {
    const int first = thread / kBlock * kBlock, j = thread % kBlock;
    float n[kBlock];
#pragma unroll
    for (int i = 0; i < kBlock; ++i) {
      float sum = i > j ? a[first + i][first + j] : 0;
#pragma unroll
      for (int l = 0; l < i; ++l) sum = fmaf(a[first + i][first + l] * beta[first + l], n[l], sum);
      n[i] = i > j ? -sum : 0;
    }
    __syncwarp();
#pragma unroll
    for (int i = 0; i < kBlock; ++i) a[first + i][first + j] = n[i];
  }
  __syncthreads();
  for (int first = kBlock; first < kSide; first += kBlock) {
    for (int at = thread; at < kBlock * first; at += kBlockThreads) {
      const int i = at / first, j = at % first;
      float sum = a[first + i][j];
      for (int l = j / kBlock * kBlock; l < first; ++l) sum = fmaf(a[first + i][l] * beta[l], a[l][j], sum);
      scratch[i][j] = sum;
    }
    __syncthreads();
    for (int at = thread; at < kBlock * first; at += kBlockThreads) {
      const int i = at / first, j = at % first;
      float sum = scratch[i][j];
      for (int l = 0; l < i; ++l) sum = fmaf(a[first + i][first + l] * beta[first + l], scratch[l][j], sum);
      a[first + i][j] = -sum;
    }
    __syncthreads();
  }
}

template <class Element>
__global__ __launch_bounds__(kBlockThreads, 2) void couple(const __grid_constant__ ChunkArguments<Element> x) {
  extern __shared__ __align__(16) std::uint8_t memory[];
  auto& shared = *reinterpret_cast<CoupleShared<Element>*>(memory);
  const Chunk chunk = chunk_of_slot(x, blockIdx.x / x.HV);
  if (chunk.count == 0) return;
  const Heads heads(x, static_cast<int>(blockIdx.x % x.HV));
  const Strengths strengths(x, heads.key);
  const Directions<Element> directions(x, chunk, heads, strengths.correction);
  RowFactors& rows = shared.rows;
  load_gates(x, chunk, heads.value, rows, shared.first_half);

  Accumulators pk, qk;
  float qq = 0, kk = 0, pp = 0;
  for (int first = 0; first < x.K; first += kSide) {
    fill(shared.q, [&](int row, int column) { return directions.query(row, first + column); });
    fill(shared.k, [&](int row, int column) { return directions.k(row, first + column); });
    if (directions.p_given) {
      fill(shared.p, [&](int row, int column) { return directions.p(row, first + column); });
    }
    __syncthreads();
    add_squares(shared.q, qq);
    add_squares(shared.k, kk);
    if (directions.p_given) add_squares(shared.p, pp);
    multiply<As::stored, As::transposed>(shared.q, shared.k, qk);
    multiply<As::stored, As::transposed>(directions.p_given ? shared.p : shared.k, shared.k, pk);
    __syncthreads();
  }
  write_factors(x, strengths, qq, kk, pp, rows);

  Couplings<Element>& result = x.couplings[blockIdx.x];
  pk.for_each([&](int i, int j, float& product) {
    const float factor = strengths.b * rows.p_scale[i] * rows.p_norm[i] * (rows.k_scale[j] * rows.k_norm[j]);
    shared.a.at[i][j] = i > j ? factor * decay_between(rows.G0, i, rows.G, j) * product : 0;
  });
  qk.for_each([&](int i, int j, float& product) {
    const float factor = x.scale * rows.q_scale[i] * rows.q_norm[i] * (rows.k_scale[j] * rows.k_norm[j]);
    product = i >= j ? factor * decay_between(rows.G, i, rows.G, j) * product : 0;
    shared.read.at[i][j] = product * rows.beta[j];
  });
  __syncthreads();
  solve(shared.a.at, rows.beta, shared.scratch);
  for (int at = 2 * threadIdx.x; at < kSide * kSide; at += 2 * kBlockThreads) {
    const float* const pair = &shared.a.at[at / kSide][at % kSide];
    store_pair(&result.feedback[at], pair[0], pair[1]);
  }
  Accumulators& read = qk;
  multiply<As::stored, As::stored>(shared.read, shared.a, read);
  read.for_each_pair([&](int i, int j, float(&pair)[2]) { store_pair(&result.read[i * kSide + j], pair[0], pair[1]); });
  const float* const from = reinterpret_cast<const float*>(&rows);
  for (unsigned i = threadIdx.x; i < sizeof(rows) / sizeof(float); i += kBlockThreads) {
    reinterpret_cast<float*>(&result.rows)[i] = from[i];
  }
}

}  // namespace comba::delta_rule::cuda::generic
