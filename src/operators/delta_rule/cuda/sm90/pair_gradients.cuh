#pragma once

#include "operators/delta_rule/cuda/sm90/chunk_products.cuh"

/// Of the gradients of a chunk (gradients.cuh): what pairs of tokens give, from products over K and V.
///
/// The products are made transposed, rows j and columns i; a warpgroup takes its columns in parts, one after the other.
namespace comba::delta_rule::cuda::sm90 {

template <class Shape>
struct PairGradients : ChunkProducts<Shape> {
  using Base = ChunkProducts<Shape>;
  using Base::add_half_to_batch;
  using Base::chunk;
  using Base::d_error;
  using Base::d_o;
  using Base::group;
  using Base::kK;
  using Base::shared;
  using Base::slabs;
  using Base::writes;
  using Base::x;
  using typename Base::Columns;
  using typename Base::Element;
  static constexpr int kPairColumns = Shape::kPairColumns;
  using Pairs = Accumulators<kChunk, kPairColumns>;  ///< rows j, columns i of a part

  /// products = rows j of k^ times rows i of `keys`, gradients = Vn_j times rows i of `values` (dO or dE); for the
  /// columns i of a part.
  __device__ void multiply_pairs(Element* keys, Element* values, int part, Pairs& products, Pairs& gradients) const {
    using Rows = cute::Shape<Int<kPairColumns>, Int<kK>>;
    const auto place = make_coord(part, 0);
    clear(gradients);
    warpgroup_fence_operand(products);
    warpgroup_fence_operand(gradients);
    warpgroup_arrive();
    add_to_batch(Product<Element, kPairColumns, GMMA::Major::K>{}, tile<Element, kChunk, kK>(shared.k),
                 local_tile(tile<Element, kChunk, kK>(keys), Rows{}, place), products, GMMA::ScaleOut::Zero);
    warpgroup_commit_batch();
    for (int slab = 0; slab < slabs(); ++slab) {
      const int offset = slab / 2 * 64 * kChunk, step = slab % 2 * 2;
      const Tensor rows =
          local_tile(tile<Element, kChunk, 64>(values + offset), cute::Shape<Int<kPairColumns>, _64>{}, place);
      warpgroup_arrive();
      add_half_to_batch(Product<Element, kPairColumns, GMMA::Major::MN>{},
                        transposed<Element, 64, kChunk>(writes() + offset), step, rows, step, gradients);
      warpgroup_commit_batch();
    }
    wait_for_products(products);
    warpgroup_fence_operand(gradients);
  }

  /// Writes columns of a matrix of pairs, rounded.
  __device__ static void store_pairs(Element* to, int part, const Pairs& c) {
    const int lane = threadIdx.x % 32, row = threadIdx.x % kWarpGroup / 32 * 16 + lane % 16;
    const int piece = part * (kPairColumns / 8) + lane / 16;
    const auto packed = [&](int n, int half) { return pack<Element>(at(c, 0, n, half, 0), at(c, 0, n, half, 1)); };
    asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(
                     cast_smem_ptr_to_uint(to) + row * 128 + ((piece ^ row % 8) * 16)),
                 "r"(packed(0, 0)), "r"(packed(0, 1)), "r"(packed(1, 0)), "r"(packed(1, 1))
                 : "memory");
  }

  /// The sums over pairs that a thread's elements belong to: of the columns i of a part over its rows j, of its two
  /// rows over all columns.
  struct PairSums {
    float column[kPairColumns / 8][2], row[2] = {};

    __device__ void begin_part() {
#pragma unroll
      for (auto& pair : column) pair[0] = pair[1] = 0;
    }

    __device__ void add(int n, int half, int side, float by_later, float by_earlier) {
      column[n][side] += by_later, row[half] += by_earlier;
    }

    /// Adds the threads of a warp and writes the columns, by warp.
    __device__ void end_part(int part, float (&later)[4][kChunk]) {
      const int warp = threadIdx.x % kWarpGroup / 32, lane = threadIdx.x % 32;
#pragma unroll
      for (int n = 0; n < kPairColumns / 8; ++n) {
#pragma unroll
        for (int side = 0; side < 2; ++side) {
          float sum = column[n][side];
#pragma unroll
          for (int distance = 4; distance < 32; distance *= 2) sum += __shfl_xor_sync(~0u, sum, distance);
          if (lane < 4) later[warp][part * kPairColumns + 8 * n + first_column() + side] = sum;
        }
      }
    }

    /// The same of the rows, by warpgroup.
    template <int kGroups>
    __device__ void end(float (&earlier)[kGroups][kChunk]) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float sum = row[half];
        sum += __shfl_xor_sync(~0u, sum, 1);
        sum += __shfl_xor_sync(~0u, sum, 2);
        if (threadIdx.x % 4 == 0) earlier[group()][first_row() + 8 * half] = sum;
      }
    }
  };

  /// Calls f(part) for each part of the warpgroup's columns i.
  template <class F>
  __device__ static void for_each_part(const F& f) {
    constexpr int kParts = kChunk / kPairColumns / Shape::kGroups;
#pragma unroll 1
    for (int part = group() * kParts; part < (group() + 1) * kParts; ++part) f(part);
  }

  /// Calls f(n, half, side, i, j) for each of the thread's pairs of tokens of a part; unless all have i < j.
  template <class F>
  __device__ static void for_each_pair(int part, const F& f) {
    if ((part + 1) * kPairColumns <= static_cast<int>(threadIdx.x) % kWarpGroup / 32 * 16) return;
#pragma unroll
    for (int n = 0; n < kPairColumns / 8; ++n) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
#pragma unroll
        for (int side = 0; side < 2; ++side) {
          f(n, half, side, part * kPairColumns + 8 * n + first_column() + side, first_row() + 8 * half);
        }
      }
    }
  }

  /// Writes X . D and adds it up.
  __device__ void prepare_read(Element* to) const {
    const ChunkGates& gates = shared.saved.gates;
    PairSums sums;
    for_each_part([&](int part) {
      Pairs products, gradients, result;
      multiply_pairs(shared.q, d_o(), part, products, gradients);
      sums.begin_part();
      clear(result);
      for_each_pair(part, [&](int n, int half, int side, int i, int j) {
        if (i < j) return;
        const float gradient = at(gradients, 0, n, half, side) * x.scale * decay_between(gates.G[i], gates.G[j]);
        const float term = gradient * at(products, 0, n, half, side);
        at(result, 0, n, half, side) = gradient;
        if (i == j) {
          shared.sums.own_read[i] = term;
        } else {
          sums.add(n, half, side, term, term);
        }
      });
      sums.end_part(part, shared.sums.later_read);
      store_pairs(to, part, result);
    });
    sums.end(shared.sums.earlier_read);
  }

  /// Writes b Z and adds up Y . E.
  __device__ void prepare_feedback(float b, Element* to) const {
    const ChunkGates& gates = shared.saved.gates;
    PairSums sums;
    for_each_part([&](int part) {
      Pairs products, gradients, result;
      multiply_pairs(shared.k, d_error(), part, products, gradients);
      sums.begin_part();
      clear(result);
      for_each_pair(part, [&](int n, int half, int side, int i, int j) {
        const float product = at(gradients, 0, n, half, side);
        if (i == j) shared.sums.own[i] = product;
        if (i <= j) return;
        const float gradient = -product * decay_between(gates.G0[i], gates.G[j]), beta = gates.beta[i];
        const float term = gradient * at(products, 0, n, half, side);
        const bool neighbours = i == j + 1;
        if (neighbours) shared.sums.neighbour[i] = term;
        sums.add(n, half, side, term, neighbours && !x.gated_delta ? 0 : beta * term);
        at(result, 0, n, half, side) = b * beta * gradient;
      });
      sums.end_part(part, shared.sums.later_feedback);
      store_pairs(to, part, result);
    });
    sums.end(shared.sums.earlier_feedback);
    if (threadIdx.x == 0) shared.sums.neighbour[0] = 0;
  }

  /// dq^ += (X . D) K^ and dk^ += (X . D)^T Q^ + b (Z + Z^T) K^, and the sums over pairs. Returns what the token of the
  /// thread, one of the first 64, contributes.
  __device__ TokenSums add_pairs(const KeyHead& head, bool first, Columns& dq, Columns& dk) const {
    __syncthreads();  // all slabs have been read
    prepare_read(shared.pairs[0]);
    prepare_feedback(head.b, shared.pairs[1]);
    fence_async();
    __syncthreads();
    const Product<Element, 64, GMMA::Major::K, GMMA::Major::MN> by_rows;
    const Product<Element, 64, GMMA::Major::MN, GMMA::Major::MN> by_columns;
    const Tensor q = transposed<Element, kChunk, 64>(shared.q + group() * 64 * kChunk);
    const Tensor k = transposed<Element, kChunk, 64>(shared.k + group() * 64 * kChunk);
    const Tensor read = tile<Element, kChunk, kChunk>(shared.pairs[0]);
    const Tensor feedback = tile<Element, kChunk, kChunk>(shared.pairs[1]);
    const GMMA::ScaleOut add = GMMA::ScaleOut::One;
    warpgroup_fence_operand(dq);
    warpgroup_fence_operand(dk);
    warpgroup_arrive();
    add_to_batch(by_columns, transposed<Element, kChunk, kChunk>(shared.pairs[0]), k, dq, add);
    add_to_batch(by_rows, read, q, dk, add);
    add_to_batch(by_rows, feedback, k, dk, add);
    add_to_batch(by_columns, transposed<Element, kChunk, kChunk>(shared.pairs[1]), k, dk, add);
    warpgroup_commit_batch();
    wait_for_products(dq);
    warpgroup_fence_operand(dk);
    TokenSums t = {};
    if (threadIdx.x < kChunk) t = token_sums(x, chunk, head, shared.saved.gates, shared.sums, first);
    return t;
  }
};

}  // namespace comba::delta_rule::cuda::sm90
