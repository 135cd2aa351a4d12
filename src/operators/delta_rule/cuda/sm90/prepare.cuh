#pragma once

#include <algorithm>

#include "operators/delta_rule/cuda/sm90/gates.cuh"
#include "operators/delta_rule/cuda/sm90/inverse.cuh"
#include "operators/delta_rule/cuda/sm90/ready.cuh"
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
/// Grid: at most a block a multiprocessor. A block has as many teams as fit, which know nothing of each other. A team
/// takes piece after piece: a chunk, a key head, value heads of it. Its two warpgroups:
///
///     P K^T | A | M | write M - I
///     (Q - s K) K^T | R | ...  | R M | write R M
///
/// The next tiles are on their way as soon as the products have read these. scan may follow while other multiprocessors
/// still prepare (ready.cuh).
namespace comba::delta_rule::cuda::sm90 {

/// What a team works on: a value head of a chunk.
class Place {
 public:
  int slot, key, value;
  Chunk chunk;

  Place() = default;

  /// In the first piece from number `piece` on that has tokens, of every `stride`-th; if there is none, is_end().
  __device__ Place(const Arguments& x, int piece, int stride) : piece_(piece) { find(x, stride); }

  __device__ bool is_end() const { return chunk.count == 0; }
  __device__ bool is_first_of_piece() const { return is_first_; }

  __device__ void advance(const Arguments& x, int stride) {
    is_first_ = false;
    if (++value < end_) return;
    piece_ += stride;
    find(x, stride);
  }

 private:
  unsigned piece_;
  int end_;
  bool is_first_;

  __device__ void find(const Arguments& x, int stride) {
    const unsigned pieces_of_slot = x.H * x.pieces_of_group;
    chunk.count = 0;
    for (; piece_ < x.sequences.slots * pieces_of_slot; piece_ += stride) {
      slot = slot_in_order(x.sequences, piece_ / pieces_of_slot);
      chunk = chunk_of_slot(x.sequences, slot);
      if (chunk.count == 0) continue;
      const unsigned rest = piece_ % pieces_of_slot, pieces = x.pieces_of_group;
      key = rest / pieces;
      value = key * x.group + rest % pieces * x.piece_heads;
      end_ = min(value + x.piece_heads, (key + 1) * x.group);
      is_first_ = true;
      return;
    }
  }
};

template <class Element_, int kK_, bool kFullFeedback_>
struct PrepareShape {
  using Element = Element_;
  static constexpr int kK = kK_;
  static constexpr bool kFullFeedback = kFullFeedback_;
  static constexpr int kTeamThreads = 2 * kWarpGroup;
  static constexpr int kQuery = 0, kKey = 1, kFeedback = kFullFeedback ? 2 : 1;

  struct alignas(1024) TeamShared {
    Element tile[kFeedback + 1][kChunk * kK];
    Element read[kChunk * kChunk];
    float inverse[kChunk][kInverseStride];  ///< A, then M
    ChunkGates gates;
    float q_norm[kChunk], k_norm[kChunk], p_norm[kChunk];  ///< 1 / |q~_i|, 1 / |k_i|, 1 / |p_i|; absent tokens: 0
    float column_factor[kTeamThreads / 32][kChunk];        ///< of each warp
    double first_half;
    Place place;
    std::uint64_t loaded;
  };
  static constexpr int kTeams = std::min<int>(3, 227 * 1024 / sizeof(TeamShared));
  static constexpr int kThreads = kTeams * kTeamThreads;
  static_assert(kTeamThreads / 32 == kWritingWarps);
  struct Shared {
    TeamShared team[kTeams];
  };
};

/// A team of a block, seen from one of its threads. It has three named barriers: of all, of one warpgroup, and of a
/// warpgroup that waits for the other.
template <class Shape>
struct Team {
  static constexpr int kThreads = Shape::kTeamThreads;
  const int number = __shfl_sync(~0u, static_cast<int>(threadIdx.x) / kThreads, 0);  // known to be a warp's
  const int thread = static_cast<int>(threadIdx.x) % kThreads;
  const bool reads = __shfl_sync(~0u, thread / kWarpGroup, 0) == 1;  ///< in the warpgroup of R

  __device__ void meet() const { barrier_wait(1 + 3 * number, kThreads); }
  __device__ int inverse_warps() const { return 2 + 3 * number; }
  __device__ int inverse_known() const { return 3 + 3 * number; }
};

/// 1 / |x_i - strength y_i| of all rows of two tiles by a team, four threads a row; 1 if not normalised.
template <class Element, int kK>
__device__ void row_norms(const Chunk& chunk, int thread, const Element* x, const Element* y, float strength,
                          bool normalised, float eps, float* norms) {
  const int row = thread / 4, quarter = thread % 4;
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

/// Squares of the norms of k from the diagonal of K K^T, normalised as row_norms() does.
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

/// Clears the counts of what a team is going to write; its threads do every `stride`-th piece together.
__device__ inline void clear_counts(const Arguments& x, int first, int stride, int thread, int threads) {
  for (Place at(x, first + thread * stride, threads * stride); !at.is_end(); at.advance(x, threads * stride)) {
    x.chunks[static_cast<std::int64_t>(at.slot) * x.HV + at.value].written = 0;
  }
  __threadfence();
}

template <class Shape>
__global__ __launch_bounds__(Shape::kThreads, 1) void prepare(const __grid_constant__ Arguments x) {
  using Element = typename Shape::Element;
  constexpr int kK = Shape::kK;
  extern __shared__ __align__(1024) std::uint8_t memory[];
  const Team<Shape> team;
  auto& shared = reinterpret_cast<typename Shape::Shared*>(memory)->team[team.number];
  const int correction = x.fla ? Shape::kFeedback : Shape::kKey;
  const auto tile_of = [&](int which) { return tile<Element, kChunk, kK>(shared.tile[which]); };
  const auto has_new_p = [&](const Place& at) { return Shape::kFullFeedback && x.p_of_value_heads && !at.is_end(); };
  const auto load_tile = [&](const CUtensorMap& map, const Place& at, int which, int head) {
    for (int column = 0; column < kK; column += 64) {
      load_box(map, shared.loaded, shared.tile[which] + kChunk * column, column, head, at.chunk.begin, at.chunk.batch);
    }
  };
  const auto load_tiles = [&](const Place& at) {
    if (at.is_end() || team.thread != 0) return;
    if (at.is_first_of_piece()) {
      set_barrier_transaction_bytes(shared.loaded, sizeof(shared.tile));
      load_tile(x.k, at, Shape::kKey, at.key);
      load_tile(x.q, at, Shape::kQuery, at.key);
      if (Shape::kFullFeedback) load_tile(x.p, at, Shape::kFeedback, x.p_of_value_heads ? at.value : at.key);
    } else if (has_new_p(at)) {
      set_barrier_transaction_bytes(shared.loaded, sizeof(shared.tile[0]));
      load_tile(x.p, at, Shape::kFeedback, at.value);
    }
  };

  const auto stride = [] { return static_cast<int>(gridDim.x) * Shape::kTeams; };
  const int first = team.number * gridDim.x + blockIdx.x;
  Place now(x, first, stride());
  RawGates raw;
  if (team.thread == 0) {
    shared.place = now;
    initialize_barrier(shared.loaded, 1);
    cutlass::arch::fence_barrier_init();
  }
  load_tiles(now);
  if (!now.is_end()) raw.load(x, now.chunk, now.value, team.thread);
  if (x.prepare_multiprocessors > 0) clear_counts(x, first, stride(), team.thread, team.kThreads);
  __syncthreads();
  let_next_kernel_start();
  for (int phase = 0; !now.is_end();) {
    const Chunk chunk = now.chunk;
    const KeyHead head(x, now.key);
    const bool is_first = now.is_first_of_piece(), new_p = is_first || has_new_p(now);
    // Where they meet here all warps have left the place before.
    raw.resolve(x, chunk, team.thread, shared.gates, shared.first_half, [&] { team.meet(); });
    if (new_p) wait_barrier(shared.loaded, phase), phase ^= 1;

    const Product<Element, kChunk, GMMA::Major::K> product;
    Accumulators<kChunk, kChunk> products;
    const auto norms = [&](int which, float strength, bool normalised, float* to) {
      row_norms<Element, kK>(chunk, team.thread, shared.tile[which], shared.tile[correction], strength, normalised,
                             x.l2norm_eps, to);
    };
    multiply(product, tile_of(team.reads ? correction : Shape::kFeedback), tile_of(Shape::kKey), products,
             GMMA::ScaleOut::Zero);
    if (team.thread == kWarpGroup - 1) {  // of a warp that had no gates to do
      Place next = shared.place;
      next.advance(x, stride());
      shared.place = next;
    }
    if (new_p) norms(Shape::kQuery, head.strength, x.l2norm, shared.q_norm);
    if (Shape::kFullFeedback && is_first) norms(Shape::kKey, 0, x.l2norm, shared.k_norm);
    if (Shape::kFullFeedback && new_p) norms(Shape::kFeedback, 0, x.fla && x.l2norm, shared.p_norm);
    wait_for_products(products);
    if (team.reads) {
#pragma unroll
      for (int i = 0; i < size(products); ++i) products(i) = head.strength == 0 ? 0 : -head.strength * products(i);
      multiply(product, tile_of(Shape::kQuery), tile_of(Shape::kKey), products, GMMA::ScaleOut::One);
      wait_for_products(products);
    } else if (!Shape::kFullFeedback) {
      norms_of_diagonal(chunk, products, x.l2norm, x.l2norm_eps, shared.k_norm);
    }
    clear_absent_rows(chunk, products);
    team.meet();  // gates, norms and the next place are known, the tiles are free
    const std::int64_t index = static_cast<std::int64_t>(now.slot) * x.HV + now.value;
    ChunkMatrices& result = x.chunks[index];
    now = shared.place;
    load_tiles(now);
    if (!now.is_end()) raw.load(x, now.chunk, now.value, team.thread);

    const ChunkGates& gates = shared.gates;
    const float* const p_norm = Shape::kFullFeedback ? shared.p_norm : shared.k_norm;
    float* const column_factor = shared.column_factor[team.thread / 32];
    float factor[2];
    LogDecay to[2];
    if (team.reads) {
      const int token = team.thread - kWarpGroup;
      write_factors(x, chunk, head, gates, shared.q_norm, shared.k_norm, p_norm, token, result.factors);
      if (x.gates) save_gates(gates, shared.q_norm, shared.k_norm, token, x.gates[index]);
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int i = first_row() + 8 * half;
        factor[half] = x.scale * shared.q_norm[i], to[half] = gates.G[i];
      }
      Triangle r(products, true, factor, to, gates, shared.k_norm, column_factor);
      barrier_wait(team.inverse_known(), team.kThreads);
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
      barrier_wait(team.inverse_warps(), kWarpGroup);
      invert(shared.inverse, team.inverse_warps());
      barrier_arrive(team.inverse_known(), team.kThreads);
      write_inverse(shared.inverse, reinterpret_cast<Element*>(result.inverse));
    }
    if (x.prepare_multiprocessors > 0) count_written(result);
  }
}

}  // namespace comba::delta_rule::cuda::sm90
