#pragma once

#include "operators/delta_rule/cuda/sm90/backward.h"
#include "operators/delta_rule/cuda/sm90/gate_gradients.cuh"
#include "operators/delta_rule/cuda/sm90/gates.cuh"
#include "operators/delta_rule/cuda/sm90/ready.cuh"
#include "operators/delta_rule/cuda/sm90/ring.cuh"
#include "operators/delta_rule/cuda/sm90/tiles.cuh"

/// Of the gradients of a chunk (gradients.cuh): its tensors in shared memory, how they come there, and the products
/// with the states.
namespace comba::delta_rule::cuda::sm90 {

template <class Element_, int kK_, bool kGrouped_>
struct GradientsShape {
  using Element = Element_;
  static constexpr int kK = kK_;
  static constexpr bool kGrouped = kGrouped_;  ///< whether several value heads share a key head
  static constexpr int kGroups = kK / 64;
  static constexpr int kThreads = kGroups * kWarpGroup;
  static constexpr int kBlocks = kK <= 128 ? 2 : 1;          ///< of a multiprocessor
  static constexpr int kPairColumns = 16;                    ///< of a warpgroup at a time, of pairs of tokens
  static constexpr int kSlabRows = kSavedRows, kPlaces = 3;  ///< of the ring
  static constexpr int kMatrix = kChunk * kChunk;

  struct Shared {
    Element q[kChunk * kK], k[kChunk * kK];
    union {
      Element slab[kPlaces][kSlabRows * kK];
      Element pairs[2][kMatrix];
    };
    SavedGates saved;
    RowSums<kGroups> sums;
    std::uint64_t keys_loaded, values_loaded, full[kPlaces];
    unsigned readers[kPlaces];  ///< warps that have read what a place held, of all rounds
  };
  /// dO, dE and Vn come behind it: tiles of 64 x V_rows, twice, and V_rows x 64.
  static constexpr int kValuesOffset = (sizeof(Shared) + 1023) / 1024 * 1024;
  static constexpr int shared_bytes(int V_rows) { return kValuesOffset + 6 * V_rows * kChunk; }
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
  const int slot, key;

  __device__ static int group() { return static_cast<int>(threadIdx.x) / kWarpGroup; }
  __device__ Element* d_o() const { return values; }
  __device__ Element* d_error() const { return values + x.V_rows * kChunk; }
  __device__ Element* writes() const { return values + 2 * x.V_rows * kChunk; }
  __device__ int slabs() const { return (x.V + kSlabRows - 1) / kSlabRows; }
  __device__ std::int64_t index_of(int value) const { return static_cast<std::int64_t>(slot) * x.HV + value; }

  __device__ void load_keys() const {
    set_barrier_transaction_bytes(shared.keys_loaded, sizeof(shared.q) + sizeof(shared.k));
    for (int column = 0; column < kK; column += 64) {
      load_box(x.k, shared.keys_loaded, shared.k + kChunk * column, column, key, chunk.begin, chunk.batch);
      load_box(x.q, shared.keys_loaded, shared.q + kChunk * column, column, key, chunk.begin, chunk.batch);
    }
  }

  /// Waits until reverse has left a value head of the chunk behind.
  __device__ void wait_for_reverse(int value) const {
    const int n = sequence_of_slot(x.sequences, slot), slices = (x.V + kFollowedColumns - 1) / kFollowedColumns;
    const Sequence s = sequence(x.sequences, n);
    if (slot < s.slot) return;  // wrong borders: reverse tells of no such chunk
    const unsigned* const progress = y.progress + (static_cast<std::int64_t>(n) * x.HV + value) * slices;
    for (int slice = 0; slice < slices; ++slice) {
      wait_for_progress(progress[slice], s.chunks() - (slot - s.slot));
    }
    let_bulk_copies_see();
  }

  __device__ void load_values(int value) const {
    const std::int64_t index = index_of(value);
    const int blocks = (x.V + 63) / 64;
    set_barrier_transaction_bytes(shared.values_loaded,
                                  blocks * 3 * 64 * kChunk * sizeof(Element) + sizeof(SavedGates));
    SM90_BULK_COPY_G2S::copy(x.gates + index, &shared.values_loaded, &shared.saved, sizeof(SavedGates));
    for (int block = 0; block < blocks; ++block) {
      const int offset = block * 64 * kChunk;
      load_box(y.d_o, shared.values_loaded, d_o() + offset, block * 64, value, chunk.begin, chunk.batch);
      SM90_BULK_COPY_G2S::copy(x.writes + index * x.V_rows * kChunk + offset, &shared.values_loaded, writes() + offset,
                               64 * kChunk * sizeof(Element));
    }
    if (y.progress) wait_for_reverse(value);
    for (int block = 0; block < blocks; ++block) {
      const int offset = block * 64 * kChunk;
      load_box(y.d_error, shared.values_loaded, d_error() + offset, block * 64, 0, 0, static_cast<int>(index));
    }
  }

  static constexpr int kPasses = Shape::kGrouped ? 3 : 2;  ///< S, S again if grouped, dS+

  /// Slab `item` of a value head, of all passes, to a place of the ring.
  __device__ void load_slab(int item, int place, int value) const {
    const std::uint16_t* const from = (item < (kPasses - 1) * slabs() ? x.states : y.d_states) +
                                      index_of(value) * x.V_rows * kK + item % slabs() * kSlabRows * 64;
    set_barrier_transaction_bytes(shared.full[place], sizeof(shared.slab[0]));
    for (int block = 0; block < Shape::kGroups; ++block) {
      SM90_BULK_COPY_G2S::copy(from + static_cast<std::int64_t>(block) * x.V_rows * 64, &shared.full[place],
                               shared.slab[place] + block * kSlabRows * 64, kSlabRows * 64 * sizeof(Element));
    }
  }

  /// Says that a warp has read a place of the ring, and whether it is the last.
  __device__ bool is_last_reader(int place) const {
    constexpr unsigned kWarps = Shape::kThreads / 32;
    unsigned before;
    asm volatile("atom.acq_rel.cta.shared::cta.add.u32 %0, [%1], 1;"
                 : "=r"(before)
                 : "r"(cast_smem_ptr_to_uint(&shared.readers[place]))
                 : "memory");
    return before % kWarps == kWarps - 1;
  }

  /// Calls multiply(block, half, slab) for each slab of a pass: the part `half` of 64 rows number `block` of the
  /// values; it makes products and waits for them. The last warp to leave a place sends for the slab that comes there
  /// next, so that nobody waits for the others.
  template <class Multiply>
  __device__ void for_each_slab(int pass, int value, RingPlace& ring, const Multiply& multiply) const {
    int item = pass * slabs();
    for (int block = 0; block < (slabs() + 1) / 2; ++block) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        if (2 * block + half >= slabs()) break;
        wait_barrier(shared.full[ring.stage], ring.phase);
        multiply(block, half, shared.slab[ring.stage] + group() * kSlabRows * 64);
        __syncwarp();
        if (threadIdx.x % 32 == 0 && item + Shape::kPlaces < kPasses * slabs() && is_last_reader(ring.stage)) {
          load_slab(item + Shape::kPlaces, ring.stage, value);
        }
        ++item;
        ring.template advance<Shape::kPlaces>();
      }
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

  /// Sums over the warpgroup's columns of the rows of c times those of q^ or k^.
  __device__ static void row_sum(float* to, const Element* tile, const Columns& c) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float sum = 0;
#pragma unroll
      for (int n = 0; n < 8; ++n) {
        const float2 pair = pair_of(tile, n, half);
        sum = fmaf(pair.x, at(c, 0, n, half, 0), fmaf(pair.y, at(c, 0, n, half, 1), sum));
      }
      sum += __shfl_xor_sync(~0u, sum, 1);
      sum += __shfl_xor_sync(~0u, sum, 2);
      if (threadIdx.x % 4 == 0) to[first_row() + 8 * half] = sum;
    }
  }

  /// q^ and k^ in the places of q and k; zero for absent tokens, whatever they hold.
  __device__ void normalize(float strength) const {
    using Eight = cutlass::Array<Element, 8>;
#pragma unroll 2
    for (int i = threadIdx.x; i < kChunk * kK / 8; i += Shape::kThreads) {
      const int row = i / (kK / 8), offset = piece_offset<kChunk>(row, i % (kK / 8));
      auto& q = *reinterpret_cast<Eight*>(reinterpret_cast<char*>(shared.q) + offset);
      auto& k = *reinterpret_cast<Eight*>(reinterpret_cast<char*>(shared.k) + offset);
      const float q_norm = shared.saved.q_norm[row], k_norm = shared.saved.k_norm[row];
      const bool present = row < chunk.count;
      Eight query, key;
#pragma unroll
      for (int e = 0; e < 8; ++e) {
        const float raw = static_cast<float>(k[e]);
        query[e] = static_cast<Element>(present ? q_norm * (static_cast<float>(q[e]) - strength * raw) : 0);
        key[e] = static_cast<Element>(present ? k_norm * raw : 0);
      }
      q = query, k = key;
    }
  }

  /// c += A B^T over 32 columns of A and B that begin at steps `first_a` and `first_b` of 16, in the batch.
  template <class Product, class A, class B, class C>
  __device__ static void add_half_to_batch(Product product, const A& a, int first_a, const B& b, int first_b, C& c) {
    const auto part = product.get_slice(threadIdx.x % kWarpGroup);
    const Tensor fragment_a = part.make_fragment_A(part.partition_A(a));
    const Tensor fragment_b = part.make_fragment_B(part.partition_B(b));
    product.accumulate_ = GMMA::ScaleOut::One;
#pragma unroll
    for (int k = 0; k < 2; ++k) gemm(product, fragment_a(_, _, first_a + k), fragment_b(_, _, first_b + k), c);
  }

  /// c += A B^T over the 32 rows of values of a slab, in the batch; `a` has 64 of them.
  template <GMMA::Major kMajorA>
  __device__ static void add_slab_to_batch(Columns& c, Element* a, int half, Element* slab) {
    const Product<Element, 64, kMajorA, GMMA::Major::MN> product;
    const Tensor b = transposed<Element, kSlabRows, 64>(slab);
    if constexpr (kMajorA == GMMA::Major::K) {
      add_half_to_batch(product, tile<Element, kChunk, 64>(a), 2 * half, b, 0, c);
    } else {
      add_half_to_batch(product, transposed<Element, 64, kChunk>(a), 2 * half, b, 0, c);
    }
  }

  static constexpr int kDotPieces = kSlabRows * 8 / kWarpGroup;  ///< 16 bytes of a slab a thread

  /// c = Vn dS+^T. Returns the thread's part of <dS+, S>.
  __device__ float multiply_by_d_state(Columns& c, int value, RingPlace& ring) const {
    float dot = 0;
    clear(c);
    const auto* states = reinterpret_cast<const uint4*>(x.states + (index_of(value) * kK + group() * 64) * x.V_rows) +
                         threadIdx.x % kWarpGroup;
    constexpr bool kAhead = kK == 256;  // S is asked for a slab ahead; with narrower keys the registers are worth more
    uint4 pieces[kDotPieces];
    const auto load_pieces = [&] {
#pragma unroll
      for (int i = 0; i < kDotPieces; ++i) pieces[i] = states[i * kWarpGroup];
      states += kDotPieces * kWarpGroup;
    };
    if (kAhead) load_pieces();
    for_each_slab(kPasses - 1, value, ring, [&](int block, int half, Element* slab) {
      warpgroup_fence_operand(c);
      warpgroup_arrive();
      add_slab_to_batch<GMMA::Major::MN>(c, writes() + block * 64 * kChunk, half, slab);
      warpgroup_commit_batch();
      if (!kAhead) load_pieces();
#pragma unroll
      for (int i = 0; i < kDotPieces; ++i) {
        const uint4 d_state = reinterpret_cast<const uint4*>(slab)[threadIdx.x % kWarpGroup + i * kWarpGroup];
        const auto& s = reinterpret_cast<const cutlass::Array<Element, 8>&>(pieces[i]);
        const auto& d = reinterpret_cast<const cutlass::Array<Element, 8>&>(d_state);
#pragma unroll
        for (int j = 0; j < 8; ++j) dot = fmaf(static_cast<float>(s[j]), static_cast<float>(d[j]), dot);
      }
      if (kAhead && 2 * block + half + 1 < slabs()) load_pieces();
      wait_for_products(c);
    });
    return dot;
  }
};

}  // namespace comba::delta_rule::cuda::sm90
