#pragma once

#include "operators/delta_rule/cuda/sm90/pair_gradients.cuh"

/// Of the backward pass: all gradients of a chunk, once S, dS+, Vn and dE are known.
///
///     X = tril(dO Vn^T)       Y = -strict_tril(dE Vn^T)       D_ij = scale e^{G_i - G_j}       E_ij = e^{G0_i - G_j}
///     dq^ = scale diag(e^G) dO S^T + (X . D) K^
///     dk^ = diag(e^{G_C - G}) Vn dS+^T - b diag(beta e^{G0}) dE S^T + (X . D)^T Q^ + b (Z + Z^T) K^,   Z = diag(beta)
///     Y . E
///
/// with q^ and k^ normalised and rounded again; then through the L2 norm and the correction of the query (README.md
/// section 9).
///
/// Grid: the key heads of a slot, slot after slot; where it follows reverse (ready.cuh), from the ends on. Block: a
/// warpgroup for each 64 columns of K, which holds its columns of dq^ and dk^ while the block goes through the value
/// heads that share the key head. The products over K and V of pairs of tokens are made transposed, rows j and columns
/// i; a warpgroup has a part of the columns. Shared memory: q^, k^; dO, dE, Vn of a value head; a ring for slabs of S
/// and dS+, later for the matrices of pairs.
namespace comba::delta_rule::cuda::sm90 {

template <class Shape>
struct Gradients : PairGradients<Shape> {
  using Base = PairGradients<Shape>;
  using Base::add_pairs;
  using Base::add_slab_to_batch;
  using Base::chunk;
  using Base::clear_absent_rows;
  using Base::d_error;
  using Base::d_o;
  using Base::for_each_slab;
  using Base::group;
  using Base::key;
  using Base::kK;
  using Base::kPasses;
  using Base::load_keys;
  using Base::load_slab;
  using Base::load_values;
  using Base::multiply_by_d_state;
  using Base::normalize;
  using Base::pair_of;
  using Base::row_sum;
  using Base::shared;
  using Base::slabs;
  using Base::slot;
  using Base::x;
  using Base::y;
  using typename Base::Columns;
  using typename Base::Element;

  /// dv = diag(beta) dE, by all threads but the first kChunk.
  __device__ void write_dv(int value) const {
    if (y.dv.data == nullptr) return;
    const int pieces = x.V / 8;
    Element* const to = static_cast<Element*>(y.dv.data) + chunk.batch * y.dv.stride[0] + chunk.begin * y.dv.stride[1] +
                        value * y.dv.stride[2];
    for (int i = threadIdx.x - kChunk; i < chunk.count * pieces; i += Shape::kThreads - kChunk) {
      const int row = i / pieces, piece = i % pieces;
      using Eight = cutlass::Array<Element, 8>;
      auto eight =
          *reinterpret_cast<const Eight*>(reinterpret_cast<const char*>(d_error()) + piece_offset<kChunk>(row, piece));
      const float beta = shared.saved.gates.beta[row];
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

  /// The factor(i) of its token for each row of c.
  template <class Factor>
  __device__ static void scale_rows(Columns& c, const Factor& factor) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float f = factor(first_row() + 8 * half);
#pragma unroll
      for (int n = 0; n < 8; ++n) at(c, 0, n, half, 0) *= f, at(c, 0, n, half, 1) *= f;
    }
  }

  /// to += diag(factor) c.
  template <class Factor>
  __device__ static void add_rows(Columns& to, const Columns& c, const Factor& factor) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float f = factor(first_row() + 8 * half);
#pragma unroll
      for (int n = 0; n < 8; ++n) {
#pragma unroll
        for (int side = 0; side < 2; ++side) {
          at(to, 0, n, half, side) = fmaf(f, at(c, 0, n, half, side), at(to, 0, n, half, side));
        }
      }
    }
  }

  /// Adds what a value head gives to dq^ and dk^. Returns what the token of the thread, one of the first 64,
  /// contributes.
  __device__ TokenSums add_value_head(const KeyHead& head, int value, RingPlace& ring, Columns& dq, Columns& dk) const {
    const ChunkGates& gates = shared.saved.gates;
    const bool first = value == key * x.group;
    wait_barrier(shared.values_loaded, (value - key * x.group) & 1);
    if (first) normalize(head.strength);
    if (chunk.count < kChunk) clear_absent_rows(d_o(), (x.V + 63) / 64 * 64);
    fence_async();
    __syncthreads();
    const Element *const queries = shared.q, *const keys = shared.k;
    float* const query_sum = shared.sums.query[group()];
    float* const feedback_sum = shared.sums.feedback[group()];
    const auto query_factor = [&](int i) { return x.scale * decay_from_start(gates.G[i]); };
    const auto feedback_factor = [&](int i) { return -head.b * gates.beta[i] * decay_from_start(gates.G0[i]); };
    Columns c;
    if constexpr (Shape::kGrouped) {
      clear(c);
      for_each_slab(0, value, ring, [&](int block, int half, Element* slab) {
        warpgroup_fence_operand(c);
        warpgroup_arrive();
        add_slab_to_batch<GMMA::Major::K>(c, d_o() + block * 64 * kChunk, half, slab);
        warpgroup_commit_batch();
        wait_for_products(c);
      });
      row_sum(query_sum, queries, c);
      add_rows(dq, c, query_factor);
      clear(c);
      for_each_slab(1, value, ring, [&](int block, int half, Element* slab) {
        warpgroup_fence_operand(c);
        warpgroup_arrive();
        add_slab_to_batch<GMMA::Major::K>(c, d_error() + block * 64 * kChunk, half, slab);
        warpgroup_commit_batch();
        wait_for_products(c);
      });
      row_sum(feedback_sum, keys, c);
      add_rows(dk, c, feedback_factor);
    } else {
      for_each_slab(0, value, ring, [&](int block, int half, Element* slab) {
        warpgroup_fence_operand(dq);
        warpgroup_fence_operand(dk);
        warpgroup_arrive();
        add_slab_to_batch<GMMA::Major::K>(dq, d_o() + block * 64 * kChunk, half, slab);
        add_slab_to_batch<GMMA::Major::K>(dk, d_error() + block * 64 * kChunk, half, slab);
        warpgroup_commit_batch();
        wait_for_products(dq);
        warpgroup_fence_operand(dk);
      });
      row_sum(query_sum, queries, dq);
      row_sum(feedback_sum, keys, dk);
      scale_rows(dq, query_factor);
      scale_rows(dk, feedback_factor);
    }
    float dot = multiply_by_d_state(c, value, ring);
    row_sum(shared.sums.write[group()], keys, c);
    add_rows(dk, c, [&](int i) { return decay_between(gates.end, gates.G[i]); });
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) dot += __shfl_xor_sync(~0u, dot, distance);
    if (threadIdx.x % 32 == 0) shared.sums.state[threadIdx.x / 32] = dot;
    return add_pairs(head, first, dq, dk);
  }

  /// What only this value head has.
  __device__ float finish_value_head(const KeyHead& head, const TokenSums& t, int value) const {
    if (threadIdx.x >= kChunk) {
      write_dv(value);
      return 0;
    }
    return gate_gradients(y, chunk, slot, value, head, shared.saved.gates, t, shared.sums,
                          [&](int i) { return d_error_of_value(i, value); });
  }

  /// From dq^ and dk^ through the L2 norm and the correction. Returns the thread's part of the gradient of its
  /// strength.
  __device__ float finish_key_head(float strength, Columns& dq, Columns& dk) const {
    float d_strength = 0;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int i = first_row() + 8 * half;
      const float q_norm = shared.saved.q_norm[i], k_norm = shared.saved.k_norm[i];
      const float k_length = k_norm > 0 ? 1 / k_norm : 0;
      const float q_dot = x.l2norm ? shared.sums.q_dot[i] : 0, k_dot = x.l2norm ? shared.sums.k_dot[i] : 0;
      float sum = 0;
#pragma unroll
      for (int n = 0; n < 8; ++n) {
        const float2 queries = pair_of(shared.q, n, half), keys = pair_of(shared.k, n, half);
#pragma unroll
        for (int side = 0; side < 2; ++side) {
          const float k = side == 0 ? keys.x : keys.y, q = side == 0 ? queries.x : queries.y;
          float& of_query = at(dq, 0, n, half, side);
          float& of_key = at(dk, 0, n, half, side);
          of_query = q_norm * (of_query - q_dot * q);
          of_key = k_norm * (of_key - k_dot * k) - strength * of_query;
          sum = fmaf(k, of_query, sum);
        }
      }
      d_strength -= k_length * sum;
    }
    return d_strength;
  }

  /// Rows of a gradient by way of `buffer`, the warpgroup's part of the tile of q or k: neighbours are written
  /// together.
  __device__ void write_columns(const RowGradient& gradient, const Columns& c, Element* tile) const {
    Element* const buffer = tile + group() * 64 * kChunk;
    __syncwarp();
    store<Element, 64>(buffer,
                       [&](int n, int half) { return make_float2(at(c, 0, n, half, 0), at(c, 0, n, half, 1)); });
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

  /// Both sums over the block, for thread 0; in a fixed order.
  __device__ KeyHeadPart block_sums(KeyHeadPart part) const {
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) {
      part.b += __shfl_xor_sync(~0u, part.b, distance);
      part.strength += __shfl_xor_sync(~0u, part.strength, distance);
    }
    if (threadIdx.x % 32 == 0) shared.sums.key_parts[threadIdx.x / 32] = part;
    __syncthreads();
    KeyHeadPart sum = {};
    for (int warp = 0; warp < Shape::kThreads / 32; ++warp) {
      sum.b += shared.sums.key_parts[warp].b, sum.strength += shared.sums.key_parts[warp].strength;
    }
    return sum;
  }

  __device__ void run() const {
    if (threadIdx.x == 0) {
      initialize_barrier(shared.keys_loaded, 1);
      initialize_barrier(shared.values_loaded, 1);
      for (int place = 0; place < Shape::kPlaces; ++place) {
        initialize_barrier(shared.full[place], 1);
        shared.readers[place] = 0;
      }
      cutlass::arch::fence_barrier_init();
      load_keys();
    }
    __syncthreads();
    const KeyHead head(x, key);
    const int last = (key + 1) * x.group - 1;
    Columns dq, dk;
    clear(dq);
    clear(dk);
    KeyHeadPart part = {};
    TokenSums t;
    RingPlace ring;
    for (int value = key * x.group; value <= last; ++value) {
      if (threadIdx.x == 0) {
        RingPlace place = ring;
        load_values(value);
        for (int item = 0; item < min(Shape::kPlaces, kPasses * slabs()); ++item) {
          load_slab(item, place.stage, value);
          place.template advance<Shape::kPlaces>();
        }
      }
      if (value == key * x.group) wait_barrier(shared.keys_loaded, 0);
      t = add_value_head(head, value, ring, dq, dk);
      if (value == last) break;
      part.b += finish_value_head(head, t, value);
      fence_async();
      __syncthreads();  // everything of this value head has been read
    }
    __syncthreads();
    part.strength = finish_key_head(head.strength, dq, dk);
    write_columns(y.dq, dq, shared.q);
    write_columns(y.dk, dk, shared.k);
    part.b += finish_value_head(head, t, last);
    part = block_sums(part);
    if (threadIdx.x == 0) y.key_parts[static_cast<std::int64_t>(slot) * x.H + key] = part;
  }
};

template <class Shape>
__global__ __launch_bounds__(Shape::kThreads,
                             Shape::kBlocks) void gradients(const __grid_constant__ BackwardArguments y) {
  extern __shared__ __align__(1024) std::uint8_t memory[];
  auto& shared = *reinterpret_cast<typename Shape::Shared*>(memory);
  const Arguments& x = y.forward;
  const int number = blockIdx.x / x.H, key = blockIdx.x % x.H;
  const int slot = y.progress ? slot_from_ends(x.sequences, number) : number;
  const Chunk chunk = chunk_of_slot(x.sequences, slot);
  if (chunk.count == 0) {
    for (int value = key * x.group + threadIdx.x; value < (key + 1) * x.group; value += Shape::kThreads) {
      y.value_parts[static_cast<std::int64_t>(slot) * x.HV + value] = {0, 0};
    }
    if (threadIdx.x == 0) y.key_parts[static_cast<std::int64_t>(slot) * x.H + key] = {0, 0};
  } else {
    auto* const values = reinterpret_cast<typename Shape::Element*>(memory + Shape::kValuesOffset);
    Gradients<Shape>{{{y, x, shared, values, chunk, slot, key}}}.run();
  }
  // Whoever waits for this kernel waits for reverse, too: for the block that is to do last that is soon.
  if (y.progress && slot == 0 && key == 0) wait_for_kernel_before();
}

}  // namespace comba::delta_rule::cuda::sm90
