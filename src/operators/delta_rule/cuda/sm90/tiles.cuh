#pragma once

#include <cutlass/arch/barrier.h>
#include <cutlass/numeric_conversion.h>
#include <cutlass/numeric_types.h>
#include <cute/algorithm/gemm.hpp>
#include <cute/arch/copy_sm90_desc.hpp>
#include <cute/arch/copy_sm90_tma.hpp>
#include <cute/atom/mma_atom.hpp>
#include <cute/tensor.hpp>

#include "operators/delta_rule/cuda/sm90/arguments.h"

/// Tiles in shared memory, their products, and where the accumulators of a product lie.
///
/// A tile is K-major: a row is contiguous, in blocks of 64 columns swizzled by 128 bytes. That is what a box of a
/// tensor map brings, so operands need no rearranging, and each product of the operator has such tiles on both sides.
namespace comba::delta_rule::cuda::sm90 {

using namespace cute;  // the vocabulary of layouts and products: _64, Shape, Tensor, gemm

constexpr int kWarpGroup = 128;

template <class Element, int kRows, int kColumns>
using TileLayout = decltype(tile_to_shape(GMMA::Layout_K_SW128_Atom<Element>{}, Shape<Int<kRows>, Int<kColumns>>{}));

/// The same bytes as TileLayout<Element, kRows, kColumns>, read as the transposed matrix.
template <class Element, int kRows, int kColumns>
using TransposedLayout =
    decltype(tile_to_shape(GMMA::Layout_MN_SW128_Atom<Element>{}, Shape<Int<kColumns>, Int<kRows>>{}, Step<_2, _1>{}));

template <class Element, int kRows, int kColumns>
__device__ auto tile(void* data) {
  return make_tensor(make_smem_ptr(static_cast<Element*>(data)), TileLayout<Element, kRows, kColumns>{});
}

template <class Element, int kRows, int kColumns>
__device__ auto transposed(void* data) {
  return make_tensor(make_smem_ptr(static_cast<Element*>(data)), TransposedLayout<Element, kRows, kColumns>{});
}

/// Products of a warpgroup: 64 rows a step, kColumns columns; kMajorA and kMajorB tell whether A and B are tiles or
/// transposed ones.
template <class Element, int kColumns, GMMA::Major kMajorA, GMMA::Major kMajorB = GMMA::Major::K>
using Product = decltype(make_tiled_mma(
    GMMA::ss_op_selector<Element, Element, float, Shape<_64, Int<kColumns>, _16>, kMajorA, kMajorB>()));

/// C = A B^T, or C += A B^T, as one of the products between warpgroup_arrive() and warpgroup_commit_batch().
template <class Product, class A, class B, class C>
__device__ void add_to_batch(Product product, const A& a, const B& b, C& c, GMMA::ScaleOut accumulate) {
  const auto part = product.get_slice(threadIdx.x % kWarpGroup);
  const Tensor fragment_a = part.make_fragment_A(part.partition_A(a));
  const Tensor fragment_b = part.make_fragment_B(part.partition_B(b));
  product.accumulate_ = accumulate;
#pragma unroll
  for (int k = 0; k < size<2>(fragment_a); ++k) {
    gemm(product, fragment_a(_, _, k), fragment_b(_, _, k), c);
    product.accumulate_ = GMMA::ScaleOut::One;
  }
}

/// Queues C = A B^T, or C += A B^T, for the warpgroup; wait_for_products() ends it.
template <class Product, class A, class B, class C>
__device__ void multiply(Product product, const A& a, const B& b, C& c, GMMA::ScaleOut accumulate) {
  warpgroup_fence_operand(c);
  warpgroup_arrive();
  add_to_batch(product, a, b, c, accumulate);
  warpgroup_commit_batch();
}

template <class C>
__device__ void wait_for_products(C& c) {
  warpgroup_wait<0>();
  warpgroup_fence_operand(c);
}

/// Accumulators of a product of kRows x kColumns: at(m, n, half, side) is element (row, column) with
/// row = 64 m + first_row() + 8 half, column = 8 n + first_column() + side.
template <int kRows, int kColumns>
using Accumulators = decltype(partition_fragment_C(Product<cutlass::bfloat16_t, kColumns, GMMA::Major::K>{},
                                                   Shape<Int<kRows>, Int<kColumns>>{}));

template <class C>
__device__ decltype(auto) at(C& c, int m, int n, int half, int side) {
  return c(make_coord(side, half, n), m, 0);
}

__device__ inline int first_row() {
  return static_cast<int>(threadIdx.x) % kWarpGroup / 32 * 16 + threadIdx.x % 32 / 4;
}
__device__ inline int first_column() { return static_cast<int>(threadIdx.x) % 4 * 2; }

/// Two values, rounded to 16 bits, the first in the lower half.
template <class Element>
__device__ std::uint32_t pack(float low, float high) {
  const auto pair = cutlass::NumericArrayConverter<Element, float, 2>::convert({low, high});
  return reinterpret_cast<const std::uint32_t&>(pair);
}

/// Where byte `offset` of a tile whose rows (of its blocks of 64 columns) are kRowBytes long lies: pieces of 16 bytes
/// are exchanged among rows, so that a column of them meets every bank.
template <int kRowBytes>
__device__ int swizzled(int offset) {
  return offset ^ (offset >> 3 & (kRowBytes - 16));
}

/// Byte offset of piece number `piece` (8 elements) of a row of a tile of kRows rows.
template <int kRows>
__device__ int piece_offset(int row, int piece) {
  return (piece / 8 * kRows + row) * 128 + (piece % 8 ^ row % 8) * 16;
}

/// Writes 64 rows of kColumns <= 64 elements, rounded, swizzled by their width. pair_at(n, half) are two neighbours
/// where the accumulators of such rows are.
template <class Element, int kColumns, class PairAt>
__device__ void store(void* to, const PairAt& pair_at) {
  constexpr int kRowBytes = kColumns * 2;
  const int lane = threadIdx.x % 32, row = threadIdx.x % kWarpGroup / 32 * 16 + lane % 16;
  const std::uint32_t begin = cast_smem_ptr_to_uint(to) + row * kRowBytes;
  const int exchange = row * kRowBytes >> 3 & (kRowBytes - 16);
  const auto packed = [&](int n, int half) {
    const float2 pair = pair_at(n, half);
    return pack<Element>(pair.x, pair.y);
  };
#pragma unroll
  for (int n = 0; n < kColumns / 8; n += 2) {
    asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(
                     begin + ((n + lane / 16) * 16 ^ exchange)),
                 "r"(packed(n, 0)), "r"(packed(n, 1)), "r"(packed(n + 1, 0)), "r"(packed(n + 1, 1))
                 : "memory");
  }
}

/// Writes accumulators C (kRows x kColumns), rounded, as the tile C^T; row i is multiplied by factor(half) of its half.
template <class Element, int kRows, int kColumns, class C, class Factor>
__device__ void store_transposed(const C& c, void* to, const Factor& factor) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x % kWarpGroup / 32;
  const std::uint32_t begin =
      cast_smem_ptr_to_uint(to) + piece_offset<kColumns>(lane / 16 * 8 + lane % 8, 2 * warp + lane / 8 % 2);
#pragma unroll
  for (int m = 0; m < kRows / 64; ++m) {
#pragma unroll
    for (int n = 0; n < kColumns / 8; n += 2) {
      const auto packed = [&](int column, int half) {
        return pack<Element>(factor(half) * at(c, m, column, half, 0), factor(half) * at(c, m, column, half, 1));
      };
      asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(
                       begin + (m * kColumns + n * 8) * 128),
                   "r"(packed(n, 0)), "r"(packed(n, 1)), "r"(packed(n + 1, 0)), "r"(packed(n + 1, 1))
                   : "memory");
    }
  }
}

template <class Element, int kRows, int kColumns, class C>
__device__ void store_transposed(const C& c, void* to) {
  store_transposed<Element, kRows, kColumns>(c, to, [](int) { return 1.0f; });
}

/// Zeros for a piece of 16 bytes of shared memory.
__device__ inline void clear_piece(void* to) {
  asm volatile("st.shared.v4.b32 [%0], {%1, %1, %1, %1};" ::"r"(cast_smem_ptr_to_uint(to)), "r"(0) : "memory");
}

/// Queues the copy of a box to shared memory, which counts towards `arrived`.
__device__ inline void load_box(const CUtensorMap& map, std::uint64_t& arrived, void* to, int column, int head,
                                int token, int batch) {
  SM90_TMA_LOAD_4D::copy(&map, &arrived, static_cast<std::uint64_t>(TMA::CacheHintSm90::EVICT_NORMAL), to, column, head,
                         token, batch);
}

/// Makes ordinary writes to shared memory visible to wgmma and bulk copies; then the other threads must be waited for.
__device__ inline void fence_async() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

/// Programmatic dependent launch: the next kernel may take the multiprocessors that this one leaves; it waits for this
/// one's results.
__device__ inline void let_next_kernel_start() { asm volatile("griddepcontrol.launch_dependents;" ::: "memory"); }
__device__ inline void wait_for_kernel_before() { asm volatile("griddepcontrol.wait;" ::: "memory"); }

/// Named barriers: everyone waits, or one side only arrives.
__device__ inline void barrier_wait(int id, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
__device__ inline void barrier_arrive(int id, int threads) {
  asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

}  // namespace comba::delta_rule::cuda::sm90
