#pragma once

#include "operators/delta_rule/cuda/sm90/gates.cuh"
#include "operators/delta_rule/cuda/sm90/inverse.cuh"
#include "operators/delta_rule/cuda/sm90/sequences.cuh"
#include "operators/delta_rule/cuda/sm90/tiles.cuh"

/// First kernel of the forward pass: all of a chunk that does not need the state (README.md section 8).
///
///     A_ij = b / (|k_i| |k_j|) e^{G0_i - G_j} <k_i, k_j>   (i > j)       M = (I + diag(beta) A)^-1
///     R_ij = scale / (|q~_i| |k_j|) e^{G_i - G_j} <q_i - s k_i, k_j>   (i >= j)
///
/// q and k are multiplied as they lie in memory; normalisation and correction act on the products, in fp32.
///
/// Grid: (slot, key head). Block: one warpgroup; it loops over the value heads that share the key head, whose K K^T and
/// Q K^T stay in registers.
/// Shared memory: the tiles of q and k; later, in their place, A and the two results.
namespace comba::delta_rule::cuda::sm90 {

template <class Element, int kK>
struct PrepareShared {
  union {
    struct {
      Element q[kChunk * kK], k[kChunk * kK];
    } tiles;
    struct {
      float a[kChunk][kInverseStride];
      Element read[kChunk * kChunk];
    } work;
  };
  ChunkGates gates;
  float q_norm[kChunk], k_norm[kChunk];  ///< 1 / |q~_i|, 1 / |k_i|
  float column_factor[4][kChunk];        ///< of each warp
  double first_half;
  std::uint64_t loaded;
};

/// 1 / |q - strength k| and 1 / |k| of each row, zero for absent tokens; two threads a row.
template <class Element, int kK>
__device__ void row_norms(const Arguments& x, const Chunk& chunk, float strength, PrepareShared<Element, kK>& shared) {
  const int row = threadIdx.x / 2, half = threadIdx.x % 2;
  const auto piece = [&](const Element* tile, int i) {
    const int offset = piece_offset<kChunk>(row, i / 4 * 8 + half * 4 + i % 4);
    return *reinterpret_cast<const cutlass::Array<Element, 8>*>(reinterpret_cast<const char*>(tile) + offset);
  };
  float qq = 0, kk = 0;
#pragma unroll 4
  for (int i = 0; i < kK / 16; ++i) {
    const auto queries = piece(shared.tiles.q, i), keys = piece(shared.tiles.k, i);
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      const float key = static_cast<float>(keys[j]), query = static_cast<float>(queries[j]) - strength * key;
      qq = fmaf(query, query, qq);
      kk = fmaf(key, key, kk);
    }
  }
  qq += __shfl_xor_sync(~0u, qq, 1);
  kk += __shfl_xor_sync(~0u, kk, 1);
  if (half > 0) return;
  const bool present = row < chunk.count;
  shared.q_norm[row] = !present ? 0 : x.l2norm ? rsqrtf(qq + x.l2norm_eps) : 1;
  shared.k_norm[row] = !present ? 0 : x.l2norm ? rsqrtf(kk + x.l2norm_eps) : 1;
}

/// The products of absent tokens, which belong to the next sequence, become zero.
template <class C>
__device__ void clear_absent_rows(const Chunk& chunk, C& products) {
  if (chunk.count == kChunk) return;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    if (first_row() + 8 * half < chunk.count) continue;
#pragma unroll
    for (int n = 0; n < kChunk / 8; ++n) at(products, 0, n, half, 0) = at(products, 0, n, half, 1) = 0;
  }
}

/// A, with beta, in shared.work.a and R in shared.work.read, from the products K K^T and Q K^T.
///
/// A warp has 16 rows. Left of its diagonal block e^{G_i - G_j} = e^{G_i - G_m} e^{G_m - G_j} with m the token before
/// the block: one exponential a row and one a column. In the block itself each element has its own.
template <class Element, int kK, class C>
__device__ void apply_decays(const Arguments& x, const KeyHead& head, const C& kk, const C& qk,
                             PrepareShared<Element, kK>& shared) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const ChunkGates& gates = shared.gates;
  const LogDecay before = warp == 0 ? LogDecay(0.0) : gates.G[16 * warp - 1];
  float* const column_factor = shared.column_factor[warp];
  for (int j = lane; j < 16 * warp; j += 32) column_factor[j] = shared.k_norm[j] * decay_between(before, gates.G[j]);
  __syncwarp();
  LogDecay G[2], G0[2];
  float a_factor[2], a_row[2], r_factor[2], r_row[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int i = first_row() + 8 * half;
    G[half] = gates.G[i], G0[half] = gates.G0[i];
    a_factor[half] = gates.beta[i] * head.b * shared.k_norm[i];
    a_row[half] = a_factor[half] * decay_between(G0[half], before);
    r_factor[half] = x.scale * shared.q_norm[i];
    r_row[half] = r_factor[half] * decay_between(G[half], before);
  }
  store<Element, kChunk>(shared.work.read, [&](int n, int half) {
    const int i = first_row() + 8 * half, j = 8 * n + first_column();
    float a[2] = {}, r[2] = {};
    if (n < 2 * warp) {
      const float2 column = *reinterpret_cast<const float2*>(column_factor + j);
#pragma unroll
      for (int side = 0; side < 2; ++side) {
        const float norm = side == 0 ? column.x : column.y, product = at(kk, 0, n, half, side);
        a[side] = a_row[half] * norm * product;
        r[side] = r_row[half] * norm * (at(qk, 0, n, half, side) - head.strength * product);
      }
    } else if (n < 2 * warp + 2) {
#pragma unroll
      for (int side = 0; side < 2; ++side) {
        const float norm = shared.k_norm[j + side], product = at(kk, 0, n, half, side);
        const float corrected = at(qk, 0, n, half, side) - head.strength * product;
        const LogDecay from = gates.G[j + side];
        a[side] = i > j + side ? a_factor[half] * norm * product * decay_between(G0[half], from) : 0;
        r[side] = i >= j + side ? r_factor[half] * norm * corrected * decay_between(G[half], from) : 0;
      }
    }
    *reinterpret_cast<float2*>(&shared.work.a[i][j]) = make_float2(a[0], a[1]);
    return make_float2(r[0], r[1]);
  });
}

/// Copies the warp's 16 rows of a tile to the workspace.
template <class Element>
__device__ void write_rows(const Element* tile, std::uint16_t* to) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const uint4* const from = reinterpret_cast<const uint4*>(tile) + 128 * warp;
#pragma unroll
  for (int i = 0; i < 4; ++i) reinterpret_cast<uint4*>(to)[128 * warp + 32 * i + lane] = from[32 * i + lane];
}

template <class Element, int kK>
__global__ __launch_bounds__(kWarpGroup, 4) void prepare(const __grid_constant__ Arguments x) {
  extern __shared__ __align__(1024) std::uint8_t memory[];
  auto& shared = *reinterpret_cast<PrepareShared<Element, kK>*>(memory);
  let_next_kernel_start();
  const Chunk chunk = chunk_of_slot(x.sequences, blockIdx.x);
  if (chunk.count == 0) return;
  const int key = blockIdx.y;

  if (threadIdx.x == 0) {
    initialize_barrier(shared.loaded, 1);
    cutlass::arch::fence_barrier_init();
    set_barrier_transaction_bytes(shared.loaded, sizeof(shared.tiles));
    for (int column = 0; column < kK; column += 64) {
      load_box(x.k, shared.loaded, shared.tiles.k + kChunk * column, column, key, chunk.begin, chunk.batch);
      load_box(x.q, shared.loaded, shared.tiles.q + kChunk * column, column, key, chunk.begin, chunk.batch);
    }
  }
  __syncthreads();
  const KeyHead head(x, key);
  RawGates raw;
  raw.load(x, chunk, key * x.group);
  raw.resolve(x, chunk, shared.gates, shared.first_half);
  wait_barrier(shared.loaded, 0);

  row_norms(x, chunk, head.strength, shared);
  const Product<Element, kChunk, GMMA::Major::K> product;
  Accumulators<kChunk, kChunk> kk, qk;
  const Tensor q = tile<Element, kChunk, kK>(shared.tiles.q), k = tile<Element, kChunk, kK>(shared.tiles.k);
  multiply(product, k, k, kk, GMMA::ScaleOut::Zero);
  multiply(product, q, k, qk, GMMA::ScaleOut::Zero);
  wait_for_products(kk);
  warpgroup_fence_operand(qk);
  clear_absent_rows(chunk, kk);
  clear_absent_rows(chunk, qk);
  for (int value = key * x.group; value < (key + 1) * x.group; ++value) {
    ChunkMatrices& result = x.chunks[static_cast<std::int64_t>(blockIdx.x) * x.HV + value];
    if (value > key * x.group) raw.resolve(x, chunk, shared.gates, shared.first_half);
    __syncthreads();  // gates and norms are known; at first also: the products have read their tiles
    if (value + 1 < (key + 1) * x.group) raw.load(x, chunk, value + 1);
    write_factors(x, chunk, head, shared.gates, shared.q_norm, shared.k_norm, result.factors);
    apply_decays(x, head, kk, qk, shared);
    __syncwarp();
    write_rows(shared.work.read, result.read);
    __syncthreads();
    invert<Element>(shared.work.a, reinterpret_cast<Element*>(result.inverse));
    if (value + 1 < (key + 1) * x.group) __syncthreads();  // the next one takes the same place
  }
}

}  // namespace comba::delta_rule::cuda::sm90
