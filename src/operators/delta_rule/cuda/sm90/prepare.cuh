#pragma once

#include "operators/delta_rule/cuda/sm90/gates.cuh"
#include "operators/delta_rule/cuda/sm90/inverse.cuh"
#include "operators/delta_rule/cuda/sm90/sequences.cuh"
#include "operators/delta_rule/cuda/sm90/tiles.cuh"
#include "operators/delta_rule/cuda/sm90/triangle.cuh"

/// First kernel of the forward pass: all of a chunk that does not need the state (README.md section 8).
///
///     A_ij = |p_i|^-1 |k_j|^-1 e^{G0_i - G_j} <p_i, k_j>             (i > j)       M = (I + diag(beta) A)^-1
///     R_ij = scale |q~_i|^-1 |k_j|^-1 e^{G_i - G_j} <q~_i, k_j>      (i >= j)      R M
///
/// with q~ = q - s k or q - s p. q, k and p are multiplied as they lie in memory; normalisation and correction act on
/// the products, in fp32. Without a full p it is b k, and the tile of k serves for both.
///
/// Grid: (blocks that share the slots, key head). A block takes slot after slot, and the value heads of each. Its two
/// warpgroups:
///
///     P K^T | A | M | write M - I
///     (Q - s K) K^T | R | ...  | R M | write R M
///
/// The next tiles are on their way as soon as the products have read these.
namespace comba::delta_rule::cuda::sm90 {

template <class Element_, int kK_, bool kFullFeedback_>
struct PrepareShape {
  using Element = Element_;
  static constexpr int kK = kK_;
  static constexpr bool kFullFeedback = kFullFeedback_;
  static constexpr int kThreads = 2 * kWarpGroup;
  static constexpr int kBlocks = kK == 256 || kFullFeedback ? 2 : 3;  ///< of a multiprocessor: as many as fit
  static constexpr int kQuery = 0, kKey = 1, kFeedback = kFullFeedback ? 2 : 1;

  struct Shared {
    Element tile[kFeedback + 1][kChunk * kK];
    Element read[kChunk * kChunk];
    float inverse[kChunk][kInverseStride];  ///< A, then M
    ChunkGates gates;
    float q_norm[kChunk], k_norm[kChunk], p_norm[kChunk];  ///< 1 / |q~_i|, 1 / |k_i|, 1 / |p_i|; absent tokens: 0
    float column_factor[kThreads / 32][kChunk];            ///< of each warp
    double first_half;
    std::uint64_t loaded;
  };
};

/// The blocks' barriers beside number 0.
constexpr int kInverseWarps = 1, kInverseKnown = 2;

/// 1 / |x_i - strength y_i| of row `row` of two tiles by four neighbouring threads; 1 if not normalised.
template <class Element, int kK>
__device__ void row_norm(const Chunk& chunk, int row, const Element* x, const Element* y, float strength,
                         bool normalised, float eps, float* norms) {
  const int quarter = threadIdx.x % 4;
  const auto piece = [&](const Element* tile, int i) {
    const int offset = piece_offset<kChunk>(row, i / 2 * 8 + quarter * 2 + i % 2);
    return *reinterpret_cast<const cutlass::Array<Element, 8>*>(reinterpret_cast<const char*>(tile) + offset);
  };
  float sum = 0;
#pragma unroll 2
  for (int i = 0; i < kK / 32; ++i) {
    const auto values = piece(x, i);
    cutlass::Array<Element, 8> others;
    others.clear();
    if (strength != 0) others = piece(y, i);
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      const float value = static_cast<float>(values[j]) - strength * static_cast<float>(others[j]);
      sum = fmaf(value, value, sum);
    }
  }
  sum += __shfl_xor_sync(~0u, sum, 1);
  sum += __shfl_xor_sync(~0u, sum, 2);
  if (quarter == 0) norms[row] = row >= chunk.count ? 0 : normalised ? rsqrtf(sum + eps) : 1;
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

/// Copies the warp's 16 rows of a tile to the workspace.
template <class Element>
__device__ void write_rows(const Element* tile, std::uint16_t* to) {
  const int warp = warp_of_group(), lane = threadIdx.x % 32;
  const uint4* const from = reinterpret_cast<const uint4*>(tile) + 128 * warp;
#pragma unroll
  for (int i = 0; i < 4; ++i) reinterpret_cast<uint4*>(to)[128 * warp + 32 * i + lane] = from[32 * i + lane];
}

/// Squares of the norms of k from the diagonal of K K^T, normalised as row_norm() does.
template <class C>
__device__ void norms_of_diagonal(const Chunk& chunk, const C& kk, bool normalised, float eps, float* norms) {
  const int warp = warp_of_group(), row = threadIdx.x % 32 / 4;
  if (row / 2 != static_cast<int>(threadIdx.x) % 4) return;
#pragma unroll
  for (int n = 0; n < kChunk / 8; ++n) {
    if (n / 2 != warp) continue;
    const float square = row % 2 == 0 ? at(kk, 0, n, n % 2, 0) : at(kk, 0, n, n % 2, 1);
    norms[8 * n + row] = 8 * n + row >= chunk.count ? 0 : normalised ? rsqrtf(square + eps) : 1;
  }
}

/// What a block works on: a value head of a chunk, of a key head.
struct Place {
  int slot, value;
  Chunk chunk;

  /// From `slot` on, the first that has tokens; if there is none, is_end().
  __device__ Place(const Arguments& x, int slot) : slot(slot) { find(x); }
  __device__ bool is_end() const { return chunk.count == 0; }
  __device__ bool is_first_value(const Arguments& x) const { return value == static_cast<int>(blockIdx.y) * x.group; }
  __device__ void advance(const Arguments& x) {
    if (++value < static_cast<int>(blockIdx.y + 1) * x.group) return;
    slot += gridDim.x;
    find(x);
  }

 private:
  __device__ void find(const Arguments& x) {
    value = blockIdx.y * x.group;
    chunk.count = 0;
    for (; slot < x.sequences.slots; slot += gridDim.x) {
      chunk = chunk_of_slot(x.sequences, slot);
      if (chunk.count > 0) return;
    }
  }
};

template <class Shape>
__global__ __launch_bounds__(Shape::kThreads, Shape::kBlocks) void prepare(const __grid_constant__ Arguments x) {
  using Element = typename Shape::Element;
  constexpr int kK = Shape::kK;
  extern __shared__ __align__(1024) std::uint8_t memory[];
  auto& shared = *reinterpret_cast<typename Shape::Shared*>(memory);
  let_next_kernel_start();
  const bool reads = cutlass::canonical_warp_group_idx() == 1;  // the warpgroup of R
  const int correction = x.fla ? Shape::kFeedback : Shape::kKey;
  const auto tile_of = [&](int which) { return tile<Element, kChunk, kK>(shared.tile[which]); };
  const auto has_new_p = [&](const Place& at) { return Shape::kFullFeedback && x.p_of_value_heads && !at.is_end(); };
  const auto load_tile = [&](const CUtensorMap& map, const Place& at, int which, int head) {
    for (int column = 0; column < kK; column += 64) {
      load_box(map, shared.loaded, shared.tile[which] + kChunk * column, column, head, at.chunk.begin, at.chunk.batch);
    }
  };
  const auto load_tiles = [&](const Place& at) {
    if (at.is_end() || threadIdx.x != 0) return;
    if (at.is_first_value(x)) {
      set_barrier_transaction_bytes(shared.loaded, sizeof(shared.tile));
      load_tile(x.k, at, Shape::kKey, blockIdx.y);
      load_tile(x.q, at, Shape::kQuery, blockIdx.y);
      if (Shape::kFullFeedback) load_tile(x.p, at, Shape::kFeedback, x.p_of_value_heads ? at.value : blockIdx.y);
    } else if (has_new_p(at)) {
      set_barrier_transaction_bytes(shared.loaded, sizeof(shared.tile[0]));
      load_tile(x.p, at, Shape::kFeedback, at.value);
    }
  };

  const KeyHead head(x, blockIdx.y);
  Place now(x, blockIdx.x);
  RawGates raw;
  if (threadIdx.x == 0) {
    initialize_barrier(shared.loaded, 1);
    cutlass::arch::fence_barrier_init();
  }
  load_tiles(now);
  if (!now.is_end()) raw.load(x, now.chunk, now.value, threadIdx.x);
  __syncthreads();
  for (int phase = 0; !now.is_end();) {
    const Chunk chunk = now.chunk;
    const bool is_first = now.is_first_value(x), new_p = is_first || has_new_p(now);
    raw.resolve(x, chunk, threadIdx.x, shared.gates, shared.first_half,
                [] { __syncthreads(); });  // here all warps have left the place before
    if (new_p) wait_barrier(shared.loaded, phase), phase ^= 1;

    const Product<Element, kChunk, GMMA::Major::K> product;
    Accumulators<kChunk, kChunk> products;
    const auto norms = [&](int which, float strength, bool normalised, float* to) {
      row_norm<Element, kK>(chunk, threadIdx.x / 4, shared.tile[which], shared.tile[correction], strength, normalised,
                            x.l2norm_eps, to);
    };
    multiply(product, tile_of(reads ? correction : Shape::kFeedback), tile_of(Shape::kKey), products,
             GMMA::ScaleOut::Zero);
    if (new_p) norms(Shape::kQuery, head.strength, x.l2norm, shared.q_norm);
    if (Shape::kFullFeedback && is_first) norms(Shape::kKey, 0, x.l2norm, shared.k_norm);
    if (Shape::kFullFeedback && new_p) norms(Shape::kFeedback, 0, x.fla && x.l2norm, shared.p_norm);
    wait_for_products(products);
    if (reads) {
#pragma unroll
      for (int i = 0; i < size(products); ++i) products(i) = head.strength == 0 ? 0 : -head.strength * products(i);
      multiply(product, tile_of(Shape::kQuery), tile_of(Shape::kKey), products, GMMA::ScaleOut::One);
      wait_for_products(products);
    } else if (!Shape::kFullFeedback) {
      norms_of_diagonal(chunk, products, x.l2norm, x.l2norm_eps, shared.k_norm);
    }
    clear_absent_rows(chunk, products);
    __syncthreads();  // gates and norms are known, the tiles are free
    const std::int64_t index = static_cast<std::int64_t>(now.slot) * x.HV + now.value;
    ChunkMatrices& result = x.chunks[index];
    now.advance(x);
    load_tiles(now);
    if (!now.is_end()) raw.load(x, now.chunk, now.value, threadIdx.x);

    const ChunkGates& gates = shared.gates;
    const float* const p_norm = Shape::kFullFeedback ? shared.p_norm : shared.k_norm;
    float* const column_factor = shared.column_factor[threadIdx.x / 32];
    float factor[2];
    LogDecay to[2];
    if (reads) {
      write_factors(x, chunk, head, gates, shared.q_norm, shared.k_norm, p_norm, threadIdx.x - kWarpGroup,
                    result.factors);
      if (x.gates) save_gates(gates, shared.q_norm, shared.k_norm, threadIdx.x - kWarpGroup, x.gates[index]);
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int i = first_row() + 8 * half;
        factor[half] = x.scale * shared.q_norm[i], to[half] = gates.G[i];
      }
      Triangle r(products, true, factor, to, gates, shared.k_norm, column_factor);
      barrier_wait(kInverseKnown, Shape::kThreads);
      r.multiply(shared.inverse, shared.read);
      __syncwarp();
      write_rows(shared.read, result.read);
    } else {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int i = first_row() + 8 * half;
        factor[half] = gates.beta[i] * head.b * p_norm[i], to[half] = gates.G0[i];
      }
      const Triangle a(products, false, factor, to, gates, shared.k_norm, column_factor);
      a.store(shared.inverse);
      barrier_wait(kInverseWarps, kWarpGroup);
      invert(shared.inverse, kInverseWarps);
      barrier_arrive(kInverseKnown, Shape::kThreads);
      write_inverse(shared.inverse, reinterpret_cast<Element*>(result.inverse));
    }
  }
}

}  // namespace comba::delta_rule::cuda::sm90
