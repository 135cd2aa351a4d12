#pragma once

#include "operators/delta_rule/cuda/sm90/chunk_products.cuh"

/// Of the gradients of a chunk (gradients.cuh): what pairs of tokens give, from products over K and V.
///
/// The products are made transposed, rows j and columns i; a warpgroup has a part of the columns.
namespace comba::delta_rule::cuda::sm90 {

template <class Shape>
struct PairGradients : ChunkProducts<Shape> {
  using Base = ChunkProducts<Shape>;
  using Base::accumulate_half;
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
  using Pairs = Accumulators<kChunk, kPairColumns>;  ///< rows j, the warpgroup's columns i

  /// c += rows j of k times rows i of `other`, of the warpgroup's columns i.
  __device__ void multiply_pairs(Pairs& c, Element* other, GMMA::ScaleOut accumulate) const {
    const Tensor rows =
        local_tile(tile<Element, kChunk, kK>(other), cute::Shape<Int<kPairColumns>, Int<kK>>{}, make_coord(group(), 0));
    multiply(Product<Element, kPairColumns, GMMA::Major::K>{}, tile<Element, kChunk, kK>(shared.k), rows, c,
             accumulate);
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
      asm volatile(
          "stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(begin + ((piece ^ row % 8) * 16)),
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
};

}  // namespace comba::delta_rule::cuda::sm90
