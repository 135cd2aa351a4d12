#pragma once

#include "operators/delta_rule/cuda/sm90/pair_gradients.cuh"

/// Of the backward pass: all gradients of a chunk, once S, dS+, Vn and dE are known.
///
///     X = tril(dO Vn^T)       Y = -strict_tril(dE Vn^T)       D_ij = scale e^{G_i - G_j}       E_ij = e^{G0_i - G_j}
///     dq^ = scale diag(e^G) dO S^T + (X . D) K^
///     dk^ = diag(e^{G_C - G}) Vn dS+^T - b diag(beta e^{G0}) dE S^T + (X . D)^T Q^ + b (Z + Z^T) K^
///
/// with Z = diag(beta) Y . E, q^ and k^ normalised; then through the L2 norm and the correction of the query (README.md
/// section 9).
///
/// Grid: (slot, key head). Block: a warpgroup for each 64 columns of K, which holds its columns of dq^ and dk^ while
/// the block goes through the value heads that share the key head. The products over K and V of pairs of tokens are
/// made transposed, rows j and columns i; a warpgroup has a part of the columns.
///
/// Shared memory: q, k; dO, dE, Vn of a value head; a ring for slabs of S and dS+; later, in their places, the matrices
/// of pairs of tokens.
namespace comba::delta_rule::cuda::sm90 {

template <class Shape>
struct Gradients : PairGradients<Shape> {
  using Base = PairGradients<Shape>;
  using Base::add_pairs;
  using Base::chunk;
  using Base::clear_absent_rows;
  using Base::d_error;
  using Base::d_o;
  using Base::group;
  using Base::index_of;
  using Base::key;
  using Base::kK;
  using Base::load_keys;
  using Base::load_slab;
  using Base::load_values;
  using Base::multiply_by_state;
  using Base::pair_of;
  using Base::row_norms;
  using Base::row_sum;
  using Base::shared;
  using Base::slabs;
  using Base::writes;
  using Base::x;
  using Base::y;
  using typename Base::Columns;
  using typename Base::Element;

  /// dv = diag(beta) dE.
  __device__ void write_dv(int value) const {
    if (y.dv.data == nullptr) return;
    const int pieces = x.V / 8;
    Element* const to = static_cast<Element*>(y.dv.data) + chunk.batch * y.dv.stride[0] + chunk.begin * y.dv.stride[1] +
                        value * y.dv.stride[2];
    for (int i = threadIdx.x; i < chunk.count * pieces; i += Shape::kThreads) {
      const int row = i / pieces, piece = i % pieces;
      using Eight = cutlass::Array<Element, 8>;
      auto eight =
          *reinterpret_cast<const Eight*>(reinterpret_cast<const char*>(d_error()) + piece_offset<kChunk>(row, piece));
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

  /// From dq^ and dk^ through the L2 norm and the correction. Returns the thread's part of the gradient of its
  /// strength.
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
__global__ __launch_bounds__(Shape::kThreads,
                             Shape::kBlocks) void gradients(const __grid_constant__ BackwardArguments y) {
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
  Gradients<Shape>{{{y, x, shared, values, chunk, key}}}.run();
}

}  // namespace comba::delta_rule::cuda::sm90
