#pragma once

#include "operators/delta_rule/cuda/generic/backward.cuh"

/// All gradients of a chunk of one value head, once the states and their gradients are known (README.md section 5).
///
///     X_ij = <dO_i, Vn_j> R'_ij            Y_ij = -beta_i <dR_i, Vn_j> A'_ij
///     dQ = diag(query) dO S^T + X K        dP = -diag(feedback) dV S^T + b Y K
///     dK = diag(write) Vn dS^T + X^T Q + b Y^T P
///
/// where Q, K, P are tiles as RowFactors tells, R' and A' (without b) the factors of their products in R and A, and the
/// norms count as constants: what they add is left to directions.cuh. So are sums over value heads.
///
/// Grid: one block for each value head of each slot. Block: 256 threads.
/// Shared memory: four tiles; in the place of two of them, between their uses, products whose rows and columns are
/// summed.
/// Numerics: sums for dg run in double over the same floats, so that what is added for one token and taken back for
/// another cancels to the last digit.
namespace comba::delta_rule::cuda::generic {

template <class Element>
struct GradientsShared {
  union {
    struct {
      SharedTile<Element> a, b;
    };
    float products[kSide][kSide + 1];
  };
  SharedTile<Element> d_read, d_feedback;  ///< X, Y
  RowFactors rows;
  double row_read[kSide], row_feedback[kSide], columns[kSide];  ///< sums of products
  double d_sum[kSide], d_seen[kSide];                           ///< gradients of G, G0
  double terms[2][kSide];
  double warp_sum[kBlockThreads / 32];
  float dbeta[kSide];
  float q_dot[2][kSide], k_dot[2][kSide], p_dot[2][kSide], b_dot[2][kSide];
};

/// Sums over columns of accumulators times a tile, row by row; a thread has shares of its two rows.
struct RowDots {
  float at[2] = {};

  template <class Element>
  __device__ void add(Accumulators& x, const SharedTile<Element>& tile) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
#pragma unroll
      for (int n = 0; n < 4; ++n) {
#pragma unroll
        for (int side = 0; side < 2; ++side) {
          const float element = static_cast<float>(tile.at[Accumulators::row(half)][Accumulators::column(n) + side]);
          at[half] = fmaf(x.at[n][half][side], element, at[half]);
        }
      }
    }
  }

  /// Sums over the left and the right half of the columns.
  __device__ void store(float (&to)[2][kSide]) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      at[half] += __shfl_xor_sync(~0u, at[half], 1);
      at[half] += __shfl_xor_sync(~0u, at[half], 2);
      if (threadIdx.x % 4 == 0) to[threadIdx.x / 128][Accumulators::row(half)] = at[half];
    }
  }
};

template <class Element>
struct ChunkGradients {
  const BackwardArguments<Element>& x;
  GradientsShared<Element>& shared;
  const Chunk& chunk;
  const Heads& heads;
  const Strengths strengths;
  const Directions<Element> directions;
  const RowFactors& rows;
  const Window<Element> d_o;
  const Window<float> errors, d_writes;
  RowDots q_dot, k_dot, p_dot, b_dot;
  float overlap = 0;  ///< a share of <dS, S>

  __device__ ChunkGradients(const BackwardArguments<Element>& x, GradientsShared<Element>& shared, const Chunk& chunk,
                            const Heads& heads)
      : x(x),
        shared(shared),
        chunk(chunk),
        heads(heads),
        strengths(x, heads.key),
        directions(x, chunk, heads, strengths.correction),
        rows(shared.rows),
        d_o(rows_of<Element>(x.d_o, chunk, heads.value, x.V)),
        errors(saved_window(x.saved_rows(x.saved.errors, chunk.slot, heads.value), x.V_tiles)),
        d_writes(saved_window(x.saved_rows(x.d_writes, chunk.slot, heads.value), x.V_tiles)) {}

  __device__ void fill_d_o(SharedTile<Element>& tile, int v) const {
    fill(tile, [&](int row, int column) { return d_o(row, v * kSide + column); });
  }
  __device__ void fill_writes(SharedTile<Element>& tile, int v) const {
    fill(tile, [&](int row, int column) { return errors(row, v * kSide + column) * rows.beta[row]; });
  }
  __device__ void fill_query(SharedTile<Element>& tile, int k) const {
    fill(tile, [&](int row, int column) { return directions.query(row, k * kSide + column) * rows.q_scale[row]; });
  }
  __device__ void fill_key(SharedTile<Element>& tile, int k) const {
    fill(tile, [&](int row, int column) { return directions.k(row, k * kSide + column) * rows.k_scale[row]; });
  }
  __device__ void fill_feedback(SharedTile<Element>& tile, int k) const {
    fill(tile, [&](int row, int column) { return directions.p(row, k * kSide + column) * rows.p_scale[row]; });
  }

  /// dbeta_i = <dR_i, error_i>; four threads a row.
  __device__ void step_sizes() const {
    const int row = threadIdx.x / 4;
    float sum = 0;
    for (int column = threadIdx.x % 4 * 8; column < x.V_tiles * kSide; column += 32) {
      const Piece d = d_writes(row, column), e = errors(row, column);
#pragma unroll
      for (int i = 0; i < 8; ++i) sum = fmaf(d.at[i], e.at[i], sum);
    }
    sum += __shfl_xor_sync(~0u, sum, 1);
    sum += __shfl_xor_sync(~0u, sum, 2);
    if (threadIdx.x % 4 == 0) shared.dbeta[row] = sum;
  }

  /// X and Y, to their tiles; sums of the rows and columns of their products with <q_i, k_j> and <p_i, k_j>.
  __device__ void couplings() const {
    SharedTile<Element>&a = shared.a, &b = shared.b;
    Accumulators d_read, d_feedback, qk, pk;
    for (int v = 0; v < x.V_tiles; ++v) {
      fill_d_o(a, v);
      fill_writes(b, v);
      __syncthreads();
      multiply<As::stored, As::transposed>(a, b, d_read);
      __syncthreads();
      fill(a, [&](int row, int column) { return d_writes(row, v * kSide + column); });
      __syncthreads();
      multiply<As::stored, As::transposed>(a, b, d_feedback);
      __syncthreads();
    }
    for (int k = 0; k < x.K_tiles; ++k) {
      fill_query(a, k);
      fill_key(b, k);
      __syncthreads();
      multiply<As::stored, As::transposed>(a, b, qk);
      if (directions.p_given) {
        __syncthreads();
        fill_feedback(a, k);
        __syncthreads();
      }
      multiply<As::stored, As::transposed>(directions.p_given ? a : b, b, pk);
      __syncthreads();
    }
    // In place: X, Y and the products.
#pragma unroll
    for (int half = 0; half < 2; ++half) {
#pragma unroll
      for (int n = 0; n < 4; ++n) {
#pragma unroll
        for (int side = 0; side < 2; ++side) {
          const int i = Accumulators::row(half), j = Accumulators::column(n) + side;
          float &dr = d_read.at[n][half][side], &df = d_feedback.at[n][half][side];
          float &through_read = qk.at[n][half][side], &through_feedback = pk.at[n][half][side];
          const float norm = rows.k_norm[j];
          dr = i >= j ? dr * (x.scale * rows.q_norm[i] * norm * decay_between(rows.G, i, rows.G, j)) : 0;
          df = i > j ? -df * (rows.beta[i] * rows.p_norm[i] * norm * decay_between(rows.G0, i, rows.G, j)) : 0;
          through_read = i > j ? dr * through_read : 0;
          through_feedback = i > j ? strengths.b * df * through_feedback : 0;
        }
      }
    }
    store(d_read, shared.d_read);
    store(d_feedback, shared.d_feedback);
    sum_products(qk, shared.row_read, false);
    sum_products(pk, shared.row_feedback, true);
  }

  __device__ void sum_products(Accumulators& products, double (&row_sum)[kSide], bool add_columns) const {
    products.for_each([&](int i, int j, float& product) { shared.products[i][j] = product; });
    __syncthreads();
    const int i = static_cast<int>(threadIdx.x) % kSide;
    if (threadIdx.x < kSide) {
      double sum = 0;
      for (int j = 0; j < i; ++j) sum += shared.products[i][j];
      row_sum[i] = sum;
    } else if (threadIdx.x < 2 * kSide) {
      double sum = add_columns ? shared.columns[i] : 0;
      for (int m = i + 1; m < kSide; ++m) sum += shared.products[m][i];
      shared.columns[i] = sum;
    }
    __syncthreads();
  }

  /// Columns [64 k, 64 k + 64) of dQ, dK and dP.
  __device__ void directions_tile(int k) {
    SharedTile<Element>&a = shared.a, &b = shared.b;
    Accumulators dq, dk, dp;
    for (int v = 0; v < x.V_tiles; ++v) {
      fill_d_o(a, v);
      fill(b, tile_window(x.saved_tile(x.saved.states, chunk.slot, heads.value, k, v)));
      __syncthreads();
      multiply<As::stored, As::transposed>(a, b, dq);
      __syncthreads();
      fill(a, [&](int row, int column) { return d_writes(row, v * kSide + column) * rows.beta[row]; });
      __syncthreads();
      multiply<As::stored, As::transposed>(a, b, dp);
      __syncthreads();
      fill_writes(a, v);
      const Window<Element> d_state = tile_window(x.saved_tile(x.d_states, chunk.slot, heads.value, k, v));
      for_each_piece([&](int, int row, int column) {
        const Piece after = d_state(row, column), before = load_piece(&b.at[row][column]);
#pragma unroll
        for (int i = 0; i < 8; ++i) overlap = fmaf(after.at[i], before.at[i], overlap);
        store_piece(after, &b.at[row][column]);
      });
      __syncthreads();
      multiply<As::stored, As::transposed>(a, b, dk);
      __syncthreads();
    }
    dq.scale_rows([&](int i) { return rows.query[i]; });
    dk.scale_rows([&](int i) { return rows.write[i]; });
    dp.scale_rows([&](int i) { return -rows.p_norm[i] * decay_from_start(rows.G0, i); });

    fill_query(a, k);
    fill_key(b, k);
    __syncthreads();
    q_dot.add(dq, a);
    k_dot.add(dk, b);
    multiply<As::stored, As::stored>(shared.d_read, b, dq);
    multiply<As::transposed, As::stored>(shared.d_read, a, dk);
    if (directions.p_given) {
      __syncthreads();
      fill_feedback(a, k);
      __syncthreads();
    }
    const SharedTile<Element>& p = directions.p_given ? a : b;
    p_dot.add(dp, p);
    multiply<As::stored, As::stored>(shared.d_feedback, b, dp);
    Accumulators through_p;
    multiply<As::transposed, As::stored>(shared.d_feedback, p, through_p);
    dk.add(through_p, strengths.b);
    if (directions.p_given) {
      dp.scale_rows([&](int i) { return rows.p_scale[i]; });
      store_direction(dp, x.dp_rows, k);
    } else {
      b_dot.add(dp, p);
      dk.add(dp, strengths.b);
    }
    dq.scale_rows([&](int i) { return rows.q_scale[i]; });
    dk.scale_rows([&](int i) { return rows.k_scale[i]; });
    store_direction(dq, x.dq_rows, k);
    store_direction(dk, x.dk_rows, k);
    __syncthreads();
  }

  __device__ void store_direction(Accumulators& from, float* to, int k) const {
    float* const first = x.direction_rows(to, chunk.slot, heads.value) + k * kSide;
    from.for_each_pair([&](int row, int column, float(&pair)[2]) {
      store_pair(first + row * (x.K_tiles * kSide) + column, pair[0], pair[1]);
    });
  }

  /// Gradients of the gates, and the chunk's shares in those of the heads.
  __device__ void gates() {
    q_dot.store(shared.q_dot);
    k_dot.store(shared.k_dot);
    p_dot.store(shared.p_dot);
    b_dot.store(shared.b_dot);
    double sum = overlap;
    for (int lane = 16; lane > 0; lane /= 2) sum += __shfl_xor_sync(~0u, sum, lane);
    if (threadIdx.x % 32 == 0) shared.warp_sum[threadIdx.x / 32] = sum;
    __syncthreads();
    const int i = static_cast<int>(threadIdx.x);
    const auto total = [](const float(&halves)[2][kSide], int row) {
      return static_cast<double>(halves[0][row]) + halves[1][row];
    };
    if (i < kSide) {
      shared.d_sum[i] = shared.row_read[i] - shared.columns[i] + total(shared.q_dot, i) - total(shared.k_dot, i);
      shared.d_seen[i] = shared.row_feedback[i] + strengths.b * total(shared.p_dot, i);
    }
    __syncthreads();
    if (i == chunk.count - 1) {
      double at_end = 0;
      for (const double& part : shared.warp_sum) at_end += part;
      at_end *= rows.decay;
      for (int row = 0; row < kSide; ++row) at_end += total(shared.k_dot, row);
      shared.d_sum[i] += at_end;
    }
    __syncthreads();
    if (i < kSide) {
      double dg = 0;
      for (int later = kSide - 1; later > i; --later) dg += shared.d_sum[later] + shared.d_seen[later];
      dg += shared.d_sum[i] + (x.gated_delta ? shared.d_seen[i] : 0);
      if (rows.g[i] <= -128) dg = 0;  // clamped
      write_gates(i, dg);
    }
    __syncthreads();
    if (i == 0) {
      ValueHeadSums sums = {};
      for (int row = 0; row < chunk.count; ++row) {
        sums.dA_log += shared.terms[0][row];
        sums.ddt_bias += shared.terms[1][row];
        sums.db += total(shared.b_dot, row);
      }
      x.value_head_sums[x.number(chunk.slot, heads.value)] = sums;
    }
  }

  __device__ void write_gates(int i, double dg) const {
    shared.terms[0][i] = shared.terms[1][i] = 0;
    if (i >= chunk.count) return;
    float d_step = shared.dbeta[i];
    if (!x.beta_given) {
      const float logit = gate_of(x.step, chunk, i, heads.value);
      d_step *= x.beta_scale * sigmoid(logit) * sigmoid(-logit);
    }
    store_gate(x.d_step, chunk, i, heads.value, d_step);
    double d_decay = dg;
    if (x.A_log) {
      const float a = gate_of(x.decay, chunk, i, heads.value) + x.dt_bias[heads.value * x.dt_bias_stride];
      d_decay = -dg * expf(x.A_log[heads.value * x.A_log_stride]) * sigmoid(a);
      shared.terms[0][i] = dg * rows.g[i];
      shared.terms[1][i] = d_decay;
    }
    store_gate(x.d_decay, chunk, i, heads.value, static_cast<float>(d_decay));
  }
};

template <class Element>
__global__ __launch_bounds__(kBlockThreads, 2) void gradients(const __grid_constant__ BackwardArguments<Element> x) {
  extern __shared__ __align__(16) std::uint8_t memory[];
  auto& shared = *reinterpret_cast<GradientsShared<Element>*>(memory);
  const Chunk chunk = chunk_of_slot(x, blockIdx.x / x.HV);
  if (chunk.count == 0) {
    if (threadIdx.x == 0) x.value_head_sums[blockIdx.x] = {};
    return;
  }
  const Heads heads(x, static_cast<int>(blockIdx.x % x.HV));
  const float* const from = reinterpret_cast<const float*>(&x.couplings[blockIdx.x].rows);
  for (unsigned i = threadIdx.x; i < sizeof(RowFactors) / sizeof(float); i += kBlockThreads) {
    reinterpret_cast<float*>(&shared.rows)[i] = from[i];
  }
  __syncthreads();
  ChunkGradients<Element> chunk_gradients(x, shared, chunk, heads);
  chunk_gradients.step_sizes();
  chunk_gradients.couplings();
  for (int k = 0; k < x.K_tiles; ++k) chunk_gradients.directions_tile(k);
  chunk_gradients.gates();
}

}  // namespace comba::delta_rule::cuda::generic
