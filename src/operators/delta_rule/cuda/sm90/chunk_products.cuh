#pragma once

#include "operators/delta_rule/cuda/sm90/backward.h"
#include "operators/delta_rule/cuda/sm90/gate_gradients.cuh"
#include "operators/delta_rule/cuda/sm90/gates.cuh"
#include "operators/delta_rule/cuda/sm90/tiles.cuh"

/// Of the gradients of a chunk (gradients.cuh): its tensors in shared memory, how they come there, and the products
/// with the states.
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
  /// dO, whose place two matrices of pairs take, dE and Vn come behind it: tiles of 64 x V_rows, twice, and V_rows
  /// x 64.
  static constexpr int kValuesOffset = (sizeof(Shared) + 1023) / 1024 * 1024;
  static constexpr int shared_bytes(int V_rows) {
    const int d_o = V_rows * kChunk;
    return kValuesOffset + 2 * ((d_o < 2 * kMatrix ? 2 * kMatrix : d_o) + 2 * V_rows * kChunk);
  }
};

template <class Shape>
struct ChunkProducts {
  using Element = typename Shape::Element;
  using Shared = typename Shape::Shared;
  static constexpr int kK = Shape::kK, kSlabRows = Shape::kSlabRows;
  using Columns = Accumulators<kChunk, 64>;  ///< rows of tokens, the warpgroup's columns of K

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
    const auto pair =
        *reinterpret_cast<const cutlass::Array<Element, 2>*>(at + ((n ^ row % 8) * 16) + 2 * first_column());
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
      const auto q =
          *reinterpret_cast<const cutlass::Array<Element, 8>*>(reinterpret_cast<const char*>(shared.q) + offset);
      const auto k =
          *reinterpret_cast<const cutlass::Array<Element, 8>*>(reinterpret_cast<const char*>(shared.k) + offset);
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

  /// One of the three products with a state: c = dO S^T, dE S^T or Vn dS+^T, from the slabs `first` to `first +
  /// slabs()` of the value head. Of the last one also <dS+, S>, of the thread's part.
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
};

}  // namespace comba::delta_rule::cuda::sm90
