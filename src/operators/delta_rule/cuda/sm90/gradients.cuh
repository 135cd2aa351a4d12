#pragma once

#include "operators/delta_rule/cuda/sm90/backward.h"
#include "operators/delta_rule/cuda/sm90/gate_gradients.cuh"
#include "operators/delta_rule/cuda/sm90/gates.cuh"
#include "operators/delta_rule/cuda/sm90/tiles.cuh"

/// Of the backward pass: all gradients of a chunk, once S, dS+, Vn and dE are known.
///
///     X = tril(dO Vn^T)       Y = -strict_tril(dE Vn^T)       D_ij = scale e^{G_i - G_j}       E_ij = e^{G0_i - G_j}
///     dq^ = scale diag(e^G) dO S^T + (X . D) K^
///     dk^ = diag(e^{G_C - G}) Vn dS+^T - b diag(beta e^{G0}) dE S^T + (X . D)^T Q^ + b (Z + Z^T) K^,   Z = diag(beta) Y . E
///
/// with q^ and k^ normalised; then through the L2 norm and the correction of the query (README.md section 9).
///
/// Grid: (slot, key head). Block: a warpgroup for each 64 columns of K, which holds its columns of dq^ and dk^ while the
/// block goes through the value heads that share the key head. The products over K and V of pairs of tokens are made
/// transposed, rows j and columns i; a warpgroup has a part of the columns.
/// Shared memory: q, k; dO, dE, Vn of a value head; a ring for slabs of S and dS+; later, in their places, the matrices
/// of pairs of tokens.
namespace comba::delta_rule::cuda::sm90 {

template <class Element_, int kK_>
struct GradientsShape {
  using Element = Element_;
  static constexpr int kK = kK_;
  static constexpr int kGroups = kK / 64;
  static constexpr int kThreads = kGroups * kWarpGroup;
  static constexpr int kBlocks = kK == 128 ? 2 : kK == 64 ? 3 : 1;  ///< of a multiprocessor
  static constexpr int kPairColumns = kChunk / kGroups;             ///< of a warpgroup, of pairs of tokens
  static constexpr int kSlabRows = 32, kSlots = 3;
  static constexpr int kMatrix = kChunk * kChunk;

  struct Shared {
    Element q[kChunk * kK], k[kChunk * kK];
    union {
      Element slab[kSlots][kSlabRows * kK];
      Element pairs[2][kMatrix];
    };
    ChunkGates gates;
    double first_half;
    float q_norm[kChunk], k_norm[kChunk];
    RowSums<kGroups> sums;
    std::uint64_t keys_loaded, values_loaded, full[kSlots], empty[kSlots];
  };
  /// dO, whose place two matrices of pairs take, dE and Vn come behind it: tiles of 64 x V_rows, twice, and V_rows x 64.
  static constexpr int kValuesOffset = (sizeof(Shared) + 1023) / 1024 * 1024;
  static constexpr int shared_bytes(int V_rows) {
    const int d_o = V_rows * kChunk;
    return kValuesOffset + 2 * ((d_o < 2 * kMatrix ? 2 * kMatrix : d_o) + 2 * V_rows * kChunk);
  }
};

template <class Shape>
struct Gradients {
  using Element = typename Shape::Element;
  using Shared = typename Shape::Shared;
  static constexpr int kK = Shape::kK, kPairColumns = Shape::kPairColumns, kSlabRows = Shape::kSlabRows;
  using Columns = Accumulators<kChunk, 64>;          ///< rows of tokens, the warpgroup's columns of K
  using Pairs = Accumulators<kChunk, kPairColumns>;  ///< rows j, the warpgroup's columns i

  const BackwardArguments& y;
  const Arguments& x;
  Shared& shared;
  Element* const values;  ///< dO, dE, Vn
  const Chunk chunk;
  const int key;

  __device__ static int group() { return static_cast<int>(threadIdx.x) / kWarpGroup; }
  __device__ Element* d_o() const { return values; }
  __device__ Element* d_error() const { return values + max(y.V_rows * kChunk, 2 * Shape::kMatrix); }
  __device__ Element* writes() const { return d_error() + y.V_rows * kChunk; }
  __device__ int slabs() const { return (x.V + kSlabRows - 1) / kSlabRows; }
  __device__ std::int64_t index_of(int value) const { return static_cast<std::int64_t>(blockIdx.x) * x.HV + value; }

  __device__ void load_keys() const {
    set_barrier_transaction_bytes(shared.keys_loaded, sizeof(shared.q) + sizeof(shared.k));
    for (int column = 0; column < kK; column += 64) {
      load_box(x.k, shared.keys_loaded, shared.k + kChunk * column, column, key, chunk.begin, chunk.batch);
      load_box(x.q, shared.keys_loaded, shared.q + kChunk * column, column, key, chunk.begin, chunk.batch);
    }
  }

  __device__ void load_values(int value) const {
    const std::int64_t index = index_of(value);
    const int blocks = (x.V + 63) / 64;
    set_barrier_transaction_bytes(shared.values_loaded, blocks * 3 * 64 * kChunk * sizeof(Element));
    for (int block = 0; block < blocks; ++block) {
      const int offset = block * 64 * kChunk;
      load_box(y.d_o, shared.values_loaded, d_o() + offset, block * 64, value, chunk.begin, chunk.batch);
      SM90_BULK_COPY_G2S::copy(y.writes + index * y.V_rows * kChunk + offset, &shared.values_loaded, writes() + offset,
                               64 * kChunk * sizeof(Element));
      load_box(y.d_error, shared.values_loaded, d_error() + offset, block * 64, 0, 0, static_cast<int>(index));
    }
  }

  /// Where slab `item` of a value head stands in the ring.
  struct SlabPlace {
    int slot, phase;
  };
  __device__ SlabPlace place(int item, int value) const {
    const int used = (value - key * x.group) * 3 * slabs() + item;
    return {used % Shape::kSlots, used / Shape::kSlots & 1};
  }

  /// Slab `item` of a value head: of S, of S again, of dS+.
  __device__ void load_slab(int item, int value) const {
    const int slot = place(item, value).slot, first = item % slabs() * kSlabRows;
    const std::uint16_t* const from =
        (item < 2 * slabs() ? y.states : y.d_states) + index_of(value) * y.V_rows * kK + first * 64;
    set_barrier_transaction_bytes(shared.full[slot], sizeof(shared.slab[0]));
    for (int block = 0; block < Shape::kGroups; ++block) {
      SM90_BULK_COPY_G2S::copy(from + static_cast<std::int64_t>(block) * y.V_rows * 64, &shared.full[slot],
                               shared.slab[slot] + block * kSlabRows * 64, kSlabRows * 64 * sizeof(Element));
    }
  }

  /// Rows of absent tokens, which belong to the next sequence: zero times whatever they hold must be zero.
  __device__ void clear_absent_rows(Element* tile, int columns) const {
    for (int i = chunk.count * (columns / 8) + threadIdx.x; i < kChunk * (columns / 8); i += Shape::kThreads) {
      clear_piece(reinterpret_cast<char*>(tile) + piece_offset<kChunk>(i / (columns / 8), i % (columns / 8)));
    }
  }

  /// Two neighbours of the warpgroup's columns of a tile with 64 rows, where accumulators of Columns are.
  __device__ static float2 pair_of(const Element* tile, int n, int half) {
    const int row = first_row() + 8 * half;
    const char* const at = reinterpret_cast<const char*>(tile + group() * 64 * kChunk) + row * 128;
    const auto pair = *reinterpret_cast<const cutlass::Array<Element, 2>*>(at + ((n ^ row % 8) * 16) + 2 * first_column());
    return make_float2(static_cast<float>(pair[0]), static_cast<float>(pair[1]));
  }

  /// Sums over the columns of a row of a(q - s k, k, c) for each element of c; of the warpgroup's columns.
  template <class F>
  __device__ void row_sum(float* to, float strength, const Columns& c, const F& term) const {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float sum = 0;
#pragma unroll
      for (int n = 0; n < 8; ++n) {
        const float2 q = pair_of(shared.q, n, half), k = pair_of(shared.k, n, half);
        sum += term(q.x - strength * k.x, k.x, at(c, 0, n, half, 0));
        sum += term(q.y - strength * k.y, k.y, at(c, 0, n, half, 1));
      }
      sum += __shfl_xor_sync(~0u, sum, 1);
      sum += __shfl_xor_sync(~0u, sum, 2);
      if (threadIdx.x % 4 == 0) to[first_row() + 8 * half] = sum;
    }
  }

  /// 1 / |q - s k| and 1 / |k| of each row, zero for absent tokens.
  __device__ void row_norms(float strength) const {
    constexpr int kLanes = Shape::kThreads / kChunk;  // of a row
    const int row = threadIdx.x / kLanes, lane = threadIdx.x % kLanes;
    float qq = 0, kk = 0;
#pragma unroll 4
    for (int i = lane; i < kK / 8; i += kLanes) {
      const int offset = piece_offset<kChunk>(row, i);
      const auto q = *reinterpret_cast<const cutlass::Array<Element, 8>*>(reinterpret_cast<const char*>(shared.q) + offset);
      const auto k = *reinterpret_cast<const cutlass::Array<Element, 8>*>(reinterpret_cast<const char*>(shared.k) + offset);
#pragma unroll
      for (int j = 0; j < 8; ++j) {
        const float key = static_cast<float>(k[j]), query = static_cast<float>(q[j]) - strength * key;
        qq = fmaf(query, query, qq);
        kk = fmaf(key, key, kk);
      }
    }
#pragma unroll
    for (int distance = 1; distance < kLanes; distance *= 2) {
      qq += __shfl_xor_sync(~0u, qq, distance);
      kk += __shfl_xor_sync(~0u, kk, distance);
    }
    if (lane > 0) return;
    const bool present = row < chunk.count;
    shared.q_norm[row] = !present ? 0 : x.l2norm ? rsqrtf(qq + x.l2norm_eps) : 1;
    shared.k_norm[row] = !present ? 0 : x.l2norm ? rsqrtf(kk + x.l2norm_eps) : 1;
  }

  /// c += A B^T over 32 columns of A and B that begin at steps `first_a` and `first_b` of 16.
  template <class Product, class A, class B, class C>
  __device__ static void accumulate_half(Product product, const A& a, int first_a, const B& b, int first_b, C& c) {
    const auto part = product.get_slice(threadIdx.x % kWarpGroup);
    const Tensor fragment_a = part.make_fragment_A(part.partition_A(a));
    const Tensor fragment_b = part.make_fragment_B(part.partition_B(b));
    product.accumulate_ = GMMA::ScaleOut::One;
    warpgroup_fence_operand(c);
    warpgroup_arrive();
#pragma unroll
    for (int k = 0; k < 2; ++k) gemm(product, fragment_a(_, _, first_a + k), fragment_b(_, _, first_b + k), c);
    warpgroup_commit_batch();
  }

  /// One of the three products with a state: c = dO S^T, dE S^T or Vn dS+^T, from the slabs `first` to `first + slabs()`
  /// of the value head. Of the last one also <dS+, S>, of the thread's part.
  template <GMMA::Major kMajorA>
  __device__ float multiply_by_state(Columns& c, Element* a, int first, int value) const {
    const Product<Element, 64, kMajorA, GMMA::Major::MN> product;
    float dot = 0;
    clear(c);
    for (int slab = 0; slab < slabs(); ++slab) {
      const SlabPlace at = place(first + slab, value);
      uint4 state[kDotPieces];
      if (first == 2 * slabs()) load_state(slab, value, state);
      wait_barrier(shared.full[at.slot], at.phase);
      Element* const block = a + slab / 2 * 64 * kChunk;
      const Tensor b = transposed<Element, kSlabRows, 64>(shared.slab[at.slot] + group() * kSlabRows * 64);
      if constexpr (kMajorA == GMMA::Major::K) {
        accumulate_half(product, tile<Element, kChunk, 64>(block), slab % 2 * 2, b, 0, c);
      } else {
        accumulate_half(product, transposed<Element, 64, kChunk>(block), slab % 2 * 2, b, 0, c);
      }
      if (first == 2 * slabs()) dot += dot_with_state(at.slot, state);
      wait_for_products(c);
      __syncwarp();
      if (threadIdx.x % 32 == 0) arrive_barrier(shared.empty[at.slot]);
      if (threadIdx.x == 0 && first + slab + Shape::kSlots < 3 * slabs()) {
        wait_barrier(shared.empty[at.slot], at.phase);
        load_slab(first + slab + Shape::kSlots, value);
      }
    }
    return dot;
  }

  static constexpr int kDotPieces = kSlabRows * 8 / kWarpGroup;  ///< 16 bytes of a slab a thread

  __device__ void load_state(int slab, int value, uint4 (&state)[kDotPieces]) const {
    const auto* const from = reinterpret_cast<const uint4*>(
        y.states + (index_of(value) * kK + group() * 64) * y.V_rows + slab * kSlabRows * 64);
#pragma unroll
    for (int i = 0; i < kDotPieces; ++i) state[i] = from[threadIdx.x % kWarpGroup + i * kWarpGroup];
  }

  __device__ float dot_with_state(int slot, const uint4 (&state)[kDotPieces]) const {
    const auto* const from = reinterpret_cast<const uint4*>(shared.slab[slot] + group() * kSlabRows * 64);
    float dot = 0;
#pragma unroll
    for (int i = 0; i < kDotPieces; ++i) {
      const uint4 d_state = from[threadIdx.x % kWarpGroup + i * kWarpGroup];
      const auto& s = reinterpret_cast<const cutlass::Array<Element, 8>&>(state[i]);
      const auto& d = reinterpret_cast<const cutlass::Array<Element, 8>&>(d_state);
#pragma unroll
      for (int j = 0; j < 8; ++j) dot = fmaf(static_cast<float>(s[j]), static_cast<float>(d[j]), dot);
    }
    return dot;
  }

  /// c += rows j of k times rows i of `other`, of the warpgroup's columns i.
  __device__ void multiply_pairs(Pairs& c, Element* other, GMMA::ScaleOut accumulate) const {
    const Tensor rows = local_tile(tile<Element, kChunk, kK>(other), cute::Shape<Int<kPairColumns>, Int<kK>>{},
                                   make_coord(group(), 0));
    multiply(Product<Element, kPairColumns, GMMA::Major::K>{}, tile<Element, kChunk, kK>(shared.k), rows, c, accumulate);
    wait_for_products(c);
  }

  /// c = Vn times rows of dO or dE, transposed: element (j, i) is <Vn_j, other_i>.
  __device__ void multiply_writes(Pairs& c, Element* other) const {
    const Product<Element, kPairColumns, GMMA::Major::MN> product;
    clear(c);
    for (int slab = 0; slab < slabs(); ++slab) {
      const int offset = slab / 2 * 64 * kChunk;
      const Tensor rows = local_tile(tile<Element, kChunk, 64>(other + offset), cute::Shape<Int<kPairColumns>, _64>{},
                                     make_coord(group(), 0));
      accumulate_half(product, transposed<Element, 64, kChunk>(writes() + offset), slab % 2 * 2, rows, slab % 2 * 2, c);
    }
    wait_for_products(c);
  }

  /// Writes the warpgroup's columns of a matrix of pairs, rounded; pair_at(n, half) are two neighbours.
  template <class PairAt>
  __device__ static void store_pairs(Element* to, const PairAt& pair_at) {
    const int lane = threadIdx.x % 32, row = threadIdx.x % kWarpGroup / 32 * 16 + lane % 16;
    const std::uint32_t begin = cast_smem_ptr_to_uint(to) + row * 128;
    const auto packed = [&](int n, int half) {
      const float2 pair = pair_at(n, half);
      return pack<Element>(pair.x, pair.y);
    };
#pragma unroll
    for (int n = 0; n < kPairColumns / 8; n += 2) {
      const int piece = group() * (kPairColumns / 8) + n + lane / 16;
      asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(begin + ((piece ^ row % 8) * 16)),
                   "r"(packed(n, 0)), "r"(packed(n, 1)), "r"(packed(n + 1, 0)), "r"(packed(n + 1, 1))
                   : "memory");
    }
  }

  /// The sums over pairs that a thread's elements belong to: of each column i over its rows j, of its two rows over i.
  struct PairSums {
    float column[kPairColumns / 8][2] = {}, row[2] = {};

    __device__ void add(int n, int half, int side, float by_later, float by_earlier) {
      column[n][side] += by_later, row[half] += by_earlier;
    }

    /// Adds the threads of a warp and writes: columns by warp, rows by warpgroup.
    template <int kGroups>
    __device__ void write(float (&later)[4][kChunk], float (&earlier)[kGroups][kChunk]) {
      const int warp = threadIdx.x % kWarpGroup / 32, lane = threadIdx.x % 32;
#pragma unroll
      for (int n = 0; n < kPairColumns / 8; ++n) {
#pragma unroll
        for (int side = 0; side < 2; ++side) {
          float sum = column[n][side];
          for (int distance = 4; distance < 32; distance *= 2) sum += __shfl_xor_sync(~0u, sum, distance);
          if (lane < 4) later[warp][group() * kPairColumns + 8 * n + first_column() + side] = sum;
        }
      }
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float sum = row[half];
        sum += __shfl_xor_sync(~0u, sum, 1);
        sum += __shfl_xor_sync(~0u, sum, 2);
        if (lane % 4 == 0) earlier[group()][first_row() + 8 * half] = sum;
      }
    }
  };

  /// Calls f(n, half, side, i, j) for each of the thread's pairs of tokens with i >= j.
  template <class F>
  __device__ static void for_each_pair(const F& f) {
#pragma unroll
    for (int n = 0; n < kPairColumns / 8; ++n) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
#pragma unroll
        for (int side = 0; side < 2; ++side) {
          f(n, half, side, group() * kPairColumns + 8 * n + first_column() + side, first_row() + 8 * half);
        }
      }
    }
  }

  /// dq^ += (X . D) K^ and dk^ += (X . D)^T Q^ + b (Z + Z^T) K^, and the sums over pairs.
  __device__ void add_pairs(const KeyHead& head, Columns& dq, Columns& dk) const {
    Element* const read_k = d_o();  // (X . D) with the divisors of k_j, and of q_i; transposed like all of them
    Element* const read_q = d_o() + Shape::kMatrix;
    Element* const feedback_k = shared.pairs[0];  // b Z with the divisors of k_j, and of k_i
    Element* const feedback_i = shared.pairs[1];
    const ChunkGates& gates = shared.gates;
    Pairs products, gradients;
    {
      multiply_pairs(products, shared.k, GMMA::ScaleOut::Zero);
#pragma unroll
      for (int e = 0; e < size(products); ++e) products(e) *= -head.strength;
      multiply_pairs(products, shared.q, GMMA::ScaleOut::One);
      multiply_writes(gradients, d_o());
      PairSums sums;
      for_each_pair([&](int n, int half, int side, int i, int j) {
        float& gradient = at(gradients, 0, n, half, side);
        gradient = i >= j ? gradient * x.scale * decay_between(gates.G[i], gates.G[j]) : 0;
        const float norms = shared.q_norm[i] * shared.k_norm[j];
        const float term = i > j ? gradient * norms * at(products, 0, n, half, side) : 0;
        sums.add(n, half, side, term, term);
      });
      sums.write(shared.sums.later_read, shared.sums.earlier_read);
    }
    __syncthreads();  // dO has been read, and all slabs
    const auto columns = [&](const float* of, int n) {
      const int i = group() * kPairColumns + 8 * n + first_column();
      return make_float2(of[i], of[i + 1]);
    };
    store_pairs(read_k, [&](int n, int half) {
      const float norm = shared.k_norm[first_row() + 8 * half];
      return make_float2(at(gradients, 0, n, half, 0) * norm, at(gradients, 0, n, half, 1) * norm);
    });
#pragma unroll
    for (int n = 0; n < kPairColumns / 8; ++n) {
      const float2 norm = columns(shared.q_norm, n);
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        at(gradients, 0, n, half, 0) *= norm.x, at(gradients, 0, n, half, 1) *= norm.y;
      }
    }
    store_pairs(read_q, [&](int n, int half) {
      return make_float2(at(gradients, 0, n, half, 0), at(gradients, 0, n, half, 1));
    });
    Pairs corrections;  // what the correction q - s k adds where Z^T K^ stands
#pragma unroll
    for (int e = 0; e < size(corrections); ++e) corrections(e) = -head.strength * gradients(e);
    {
      multiply_pairs(products, shared.k, GMMA::ScaleOut::Zero);
      multiply_writes(gradients, d_error());
      PairSums sums;
      for_each_pair([&](int n, int half, int side, int i, int j) {
        float& gradient = at(gradients, 0, n, half, side);
        if (i == j) shared.sums.own[i] = gradient;
        gradient = i > j ? -gradient * decay_between(gates.G0[i], gates.G[j]) : 0;
        const float norms = shared.k_norm[i] * shared.k_norm[j];
        const float term = i > j ? gradient * norms * at(products, 0, n, half, side) : 0;
        const bool neighbours = i == j + 1;
        if (neighbours) shared.sums.neighbour[i] = term;
        sums.add(n, half, side, term, neighbours && !x.gated_delta ? 0 : gates.beta[i] * term);
        gradient *= head.b * gates.beta[i];
      });
      if (threadIdx.x == 0) shared.sums.neighbour[0] = 0;
      sums.write(shared.sums.later_feedback, shared.sums.earlier_feedback);
    }
    store_pairs(feedback_k, [&](int n, int half) {
      const float norm = shared.k_norm[first_row() + 8 * half];
      return make_float2(at(gradients, 0, n, half, 0) * norm, at(gradients, 0, n, half, 1) * norm);
    });
    store_pairs(feedback_i, [&](int n, int half) {
      const float2 norm = columns(shared.k_norm, n);
      return make_float2(fmaf(at(gradients, 0, n, half, 0), norm.x, at(corrections, 0, n, half, 0)),
                         fmaf(at(gradients, 0, n, half, 1), norm.y, at(corrections, 0, n, half, 1)));
    });
    fence_async();
    __syncthreads();
    const Product<Element, 64, GMMA::Major::K, GMMA::Major::MN> by_rows;
    const Product<Element, 64, GMMA::Major::MN, GMMA::Major::MN> by_columns;
    const Tensor q = transposed<Element, kChunk, 64>(shared.q + group() * 64 * kChunk);
    const Tensor k = transposed<Element, kChunk, 64>(shared.k + group() * 64 * kChunk);
    multiply(by_columns, transposed<Element, kChunk, kChunk>(read_k), k, dq, GMMA::ScaleOut::One);
    multiply(by_rows, tile<Element, kChunk, kChunk>(read_q), q, dk, GMMA::ScaleOut::One);
    multiply(by_rows, tile<Element, kChunk, kChunk>(feedback_i), k, dk, GMMA::ScaleOut::One);
    multiply(by_columns, transposed<Element, kChunk, kChunk>(feedback_k), k, dk, GMMA::ScaleOut::One);
    warpgroup_wait<0>();
    warpgroup_fence_operand(dq);
    warpgroup_fence_operand(dk);
  }

  /// dv = diag(beta) dE.
  __device__ void write_dv(int value) const {
    if (y.dv.data == nullptr) return;
    const int pieces = x.V / 8;
    Element* const to = static_cast<Element*>(y.dv.data) + chunk.batch * y.dv.stride[0] +
                        chunk.begin * y.dv.stride[1] + value * y.dv.stride[2];
    for (int i = threadIdx.x; i < chunk.count * pieces; i += Shape::kThreads) {
      const int row = i / pieces, piece = i % pieces;
      using Eight = cutlass::Array<Element, 8>;
      auto eight = *reinterpret_cast<const Eight*>(reinterpret_cast<const char*>(d_error()) + piece_offset<kChunk>(row, piece));
      const float beta = shared.gates.beta[row];
#pragma unroll
      for (int e = 0; e < 8; ++e) eight[e] = static_cast<Element>(beta * static_cast<float>(eight[e]));
      *reinterpret_cast<Eight*>(to + row * y.dv.stride[1] + piece * 8) = eight;
    }
  }

  /// <dE_i, V_i>, of a token whose beta is 0: there Vn does not tell its error.
  __device__ float d_error_of_value(int i, int value) const {
    const Element* const v = static_cast<const Element*>(y.v.data) + chunk.batch * y.v.stride[0] +
                             (chunk.begin + i) * y.v.stride[1] + value * y.v.stride[2];
    float sum = 0;
    for (int c = 0; c < x.V; ++c) {
      const char* const piece = reinterpret_cast<const char*>(d_error()) + piece_offset<kChunk>(i, c / 8);
      sum = fmaf(static_cast<float>(reinterpret_cast<const Element*>(piece)[c % 8]), static_cast<float>(v[c]), sum);
    }
    return sum;
  }

  /// Adds what a value head gives to dq^ and dk^, and writes its gradients. Returns the thread's part of that of b.
  __device__ float add_value_head(const KeyHead& head, const RawGates& raw, int value, Columns& dq, Columns& dk) const {
    const ChunkGates& gates = shared.gates;
    wait_barrier(shared.values_loaded, (value - key * x.group) & 1);
    if (chunk.count < kChunk) {
      clear_absent_rows(d_o(), (x.V + 63) / 64 * 64);
      fence_async();
      __syncthreads();
    }
    Columns c;
    multiply_by_state<GMMA::Major::K>(c, d_o(), 0, value);
    row_sum(shared.sums.query[group()], head.strength, c, [](float q, float, float e) { return q * e; });
    const auto add = [&](Columns& to, const auto& factor_of) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const float factor = factor_of(first_row() + 8 * half);
#pragma unroll
        for (int n = 0; n < 8; ++n) {
#pragma unroll
          for (int side = 0; side < 2; ++side) {
            at(to, 0, n, half, side) = fmaf(factor, at(c, 0, n, half, side), at(to, 0, n, half, side));
          }
        }
      }
    };
    add(dq, [&](int i) { return x.scale * decay_from_start(gates.G[i]); });
    multiply_by_state<GMMA::Major::K>(c, d_error(), slabs(), value);
    row_sum(shared.sums.feedback[group()], 0, c, [](float, float k, float e) { return k * e; });
    add(dk, [&](int i) { return -head.b * gates.beta[i] * decay_from_start(gates.G0[i]); });
    float dot = multiply_by_state<GMMA::Major::MN>(c, writes(), 2 * slabs(), value);
    row_sum(shared.sums.write[group()], 0, c, [](float, float k, float e) { return k * e; });
    add(dk, [&](int i) { return decay_between(gates.end, gates.G[i]); });
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) dot += __shfl_xor_sync(~0u, dot, distance);
    if (threadIdx.x % 32 == 0) shared.sums.state[threadIdx.x / 32] = dot;
    add_pairs(head, dq, dk);
    write_dv(value);
    if (threadIdx.x >= kChunk) return 0;
    return gate_gradients(y, chunk, value, head, raw, gates, shared.q_norm, shared.k_norm, shared.sums,
                          [&](int i) { return d_error_of_value(i, value); });
  }

  /// From dq^ and dk^ through the L2 norm and the correction. Returns the thread's part of the gradient of its strength.
  __device__ float finish(float strength, Columns& dq, Columns& dk) const {
    row_sum(shared.sums.query[group()], strength, dq, [](float q, float, float e) { return q * e; });
    row_sum(shared.sums.feedback[group()], 0, dk, [](float, float k, float e) { return k * e; });
    __syncthreads();
    float d_strength = 0;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int i = first_row() + 8 * half;
      const float q_norm = shared.q_norm[i], k_norm = shared.k_norm[i];
      const float of_q = x.l2norm ? q_norm * q_norm * q_norm * sum_of(shared.sums.query, i) : 0;
      const float of_k = x.l2norm ? k_norm * k_norm * k_norm * sum_of(shared.sums.feedback, i) : 0;
#pragma unroll
      for (int n = 0; n < 8; ++n) {
        const float2 qs = pair_of(shared.q, n, half), ks = pair_of(shared.k, n, half);
#pragma unroll
        for (int side = 0; side < 2; ++side) {
          const float k = side == 0 ? ks.x : ks.y, q = (side == 0 ? qs.x : qs.y) - strength * k;
          float& of_query = at(dq, 0, n, half, side);
          float& of_key = at(dk, 0, n, half, side);
          of_query = q_norm * of_query - of_q * q;
          of_key = k_norm * of_key - of_k * k - strength * of_query;
          d_strength -= k * of_query;
        }
      }
    }
    return d_strength;
  }

  /// Rows of a gradient by way of `buffer`, the warpgroup's part of the tile of q or k: neighbours are written together.
  __device__ void write_columns(const RowGradient& gradient, const Columns& c, Element* tile) const {
    Element* const buffer = tile + group() * 64 * kChunk;
    __syncwarp();
    store<Element, 64>(buffer, [&](int n, int half) { return make_float2(at(c, 0, n, half, 0), at(c, 0, n, half, 1)); });
    __syncwarp();
    if (gradient.data == nullptr) return;
    const int lane = threadIdx.x % 32, first = threadIdx.x % kWarpGroup / 32 * 16 + lane / 8;
    const int column = group() * 64 + lane % 8 * 8;
    Element* const to = static_cast<Element*>(gradient.data) + chunk.batch * gradient.stride[0] +
                        chunk.begin * gradient.stride[1] + key * gradient.stride[2] + column;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int row = first + 4 * i;
      const uint4 piece =
          *reinterpret_cast<const uint4*>(reinterpret_cast<const char*>(buffer) + piece_offset<kChunk>(row, lane % 8));
      if (row < chunk.count && column < x.K) *reinterpret_cast<uint4*>(to + row * gradient.stride[1]) = piece;
    }
  }

  /// The sum of `part` over the block, for thread 0; in a fixed order.
  __device__ float block_sum(float part) const {
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) part += __shfl_xor_sync(~0u, part, distance);
    __syncthreads();
    if (threadIdx.x % 32 == 0) shared.sums.state[threadIdx.x / 32] = part;
    __syncthreads();
    float sum = 0;
    for (int warp = 0; warp < Shape::kThreads / 32; ++warp) sum += shared.sums.state[warp];
    return sum;
  }

  __device__ void run() const {
    if (threadIdx.x == 0) {
      initialize_barrier(shared.keys_loaded, 1);
      initialize_barrier(shared.values_loaded, 1);
      for (int slot = 0; slot < Shape::kSlots; ++slot) {
        initialize_barrier(shared.full[slot], 1);
        initialize_barrier(shared.empty[slot], Shape::kThreads / 32);
      }
      cutlass::arch::fence_barrier_init();
      load_keys();
    }
    __syncthreads();
    const KeyHead head(x, key);
    Columns dq, dk;
    clear(dq);
    clear(dk);
    float db = 0;
    for (int value = key * x.group; value < (key + 1) * x.group; ++value) {
      if (threadIdx.x == 0) {
        load_values(value);
        for (int item = 0; item < min(Shape::kSlots, 3 * slabs()); ++item) load_slab(item, value);
      }
      RawGates raw;
      raw.load(x, chunk, value);
      raw.resolve(x, chunk, shared.gates, shared.first_half);
      if (value == key * x.group) {
        wait_barrier(shared.keys_loaded, 0);
        row_norms(head.strength);
        if (chunk.count < kChunk) {
          __syncthreads();
          clear_absent_rows(shared.q, kK);
          clear_absent_rows(shared.k, kK);
          fence_async();
        }
      }
      __syncthreads();
      db += add_value_head(head, raw, value, dq, dk);
      fence_async();
      __syncthreads();  // everything of this value head has been read
    }
    const float d_strength = finish(head.strength, dq, dk);
    write_columns(y.dq, dq, shared.q);
    write_columns(y.dk, dk, shared.k);
    const KeyHeadPart part = {block_sum(db), block_sum(d_strength)};
    if (threadIdx.x == 0) y.key_parts[static_cast<std::int64_t>(blockIdx.x) * (x.HV / x.group) + key] = part;
  }
};

template <class Shape>
__global__ __launch_bounds__(Shape::kThreads, Shape::kBlocks) void gradients(const __grid_constant__ BackwardArguments y) {
  extern __shared__ __align__(1024) std::uint8_t memory[];
  auto& shared = *reinterpret_cast<typename Shape::Shared*>(memory);
  const Arguments& x = y.forward;
  const Chunk chunk = chunk_of_slot(x.sequences, blockIdx.x);
  const int key = blockIdx.y;
  if (chunk.count == 0) {
    for (int value = key * x.group + threadIdx.x; value < (key + 1) * x.group; value += Shape::kThreads) {
      y.value_parts[static_cast<std::int64_t>(blockIdx.x) * x.HV + value] = {0, 0};
    }
    if (threadIdx.x == 0) y.key_parts[static_cast<std::int64_t>(blockIdx.x) * (x.HV / x.group) + key] = {0, 0};
    return;
  }
  auto* const values = reinterpret_cast<typename Shape::Element*>(memory + Shape::kValuesOffset);
  Gradients<Shape>{y, x, shared, values, chunk, key}.run();
}

}  // namespace comba::delta_rule::cuda::sm90
