#pragma once

#include "operators/delta_rule/cuda/generic/backward.cuh"

/// From the gradients of the normalised rows to those of q, k, p, b and d (README.md section 3), summed over the value
/// heads of a key head in their order.
///
/// Grid: one block for each key head of each slot. Block: 256 threads, a warp a row at a time.
/// Then the sums over all chunks for b, d, A_log and dt_bias: a block for each value head.
namespace comba::delta_rule::cuda::generic {

/// A row of K elements over the lanes of a warp: lane + 32 i.
struct LaneRow {
  static constexpr int kElements = 8;
  float at[kElements] = {};

  template <class F>
  static __device__ void for_each(int K, const F& f) {
#pragma unroll
    for (int i = 0; i < kElements; ++i) {
      const int column = static_cast<int>(threadIdx.x) % 32 + 32 * i;
      if (column < K) f(i, column);
    }
  }

  template <class Element>
  __device__ void load(const Element* from, int K) {
    for_each(K, [&](int i, int column) { at[i] = static_cast<float>(from[column]); });
  }
  template <class Element>
  __device__ void store(Element* to, int K) const {
    for_each(K, [&](int i, int column) { to[column] = from_float<Element>(at[i]); });
  }
  __device__ void add(float factor, const LaneRow& other) {
#pragma unroll
    for (int i = 0; i < kElements; ++i) at[i] = fmaf(factor, other.at[i], at[i]);
  }
  template <class Element>
  __device__ void round() {
#pragma unroll
    for (float& value : at) value = static_cast<float>(from_float<Element>(value));
  }
  friend __device__ float dot(const LaneRow& x, const LaneRow& y) {
    float sum = 0;
#pragma unroll
    for (int i = 0; i < kElements; ++i) sum = fmaf(x.at[i], y.at[i], sum);
    return warp_sum(sum);
  }

  /// Gradient of x from that of r x, r held constant, in place: r is 1 / |x|.
  __device__ void denormalise(float r, const LaneRow& x) { add(-r * r * dot(x, *this), x); }
};

template <class Element>
struct DirectionRows {
  const BackwardArguments<Element>& x;
  const Chunk& chunk;
  const int key;
  const Strengths strengths;
  const float b, d;  ///< as given
  double db = 0, dd = 0;

  __device__ DirectionRows(const BackwardArguments<Element>& x, const Chunk& chunk, int key)
      : x(x),
        chunk(chunk),
        key(key),
        strengths(x, key),
        b(x.b ? x.b[key * x.b_stride] : 1),
        d(x.d ? x.d[key * x.d_stride] : 0) {}

  __device__ Element* row_of(const Strided& tensor, int head, int row) const {
    return static_cast<Element*>(tensor.data) + chunk.batch * tensor.stride[0] +
           (chunk.begin + row) * tensor.stride[1] + head * tensor.stride[2];
  }
  __device__ void load(LaneRow& to, const float* rows, int value_head, int row) const {
    to.load(x.direction_rows(const_cast<float*>(rows), chunk.slot, value_head) + row * (x.K_tiles * kSide), x.K);
  }
  __device__ void store(const LaneRow& from, const Strided& tensor, int head, int row) const {
    if (tensor.data) from.store(row_of(tensor, head, row), x.K);
  }
  /// Over the value heads of the key head.
  __device__ LaneRow sum(const float* rows, int row) const {
    LaneRow total;
    for (int value = key * x.group; value < (key + 1) * x.group; ++value) {
      LaneRow one;
      load(one, rows, value, row);
      total.add(1, one);
    }
    return total;
  }
  __device__ const RowFactors& factors(int value_head) const {
    return x.couplings[x.number(chunk.slot, value_head)].rows;
  }

  __device__ void finish(int i) {
    const bool p_given = x.p.data != nullptr, shared_p = p_given && x.value_heads_per_p == x.group;
    const bool along_p = x.fla && p_given;
    const RowFactors& rows = factors(key * x.group);
    LaneRow q, k, p;
    q.load(row_of(x.q, key, i), x.K);
    k.load(row_of(x.k, key, i), x.K);
    if (shared_p) p.load(row_of(x.p, key, i), x.K);
    LaneRow direction = k;  // of the correction
    if (along_p) direction = p;
    q.add(-strengths.correction, direction);
    q.template round<Element>();

    LaneRow dq = sum(x.dq_rows, i), dk = sum(x.dk_rows, i), dp;
    if (x.l2norm) {
      dq.denormalise(rows.q_scale[i] * rows.q_norm[i], q);
      dk.denormalise(rows.k_scale[i] * rows.k_norm[i], k);
    }
    if (shared_p) {
      dp = sum(x.dp_rows, i);
      if (x.fla && x.l2norm) dp.denormalise(rows.p_scale[i] * rows.p_norm[i], p);
    }
    const float along = dot(direction, dq);
    dd -= (x.fla && !p_given ? b : 1) * along;
    if (x.fla && !p_given) db -= d * along;
    if (along_p) {
      dp.add(-strengths.correction, dq);
    } else {
      dk.add(-strengths.correction, dq);
    }
    store(dq, x.dq, key, i);
    store(dk, x.dk, key, i);
    if (shared_p) store(dp, x.dp, key, i);
    if (p_given && !shared_p) finish_own_feedback(i);
  }

  /// p of each value head; it corrects no query.
  __device__ void finish_own_feedback(int i) const {
    for (int value = key * x.group; value < (key + 1) * x.group; ++value) {
      LaneRow p, dp;
      p.load(row_of(x.p, value, i), x.K);
      load(dp, x.dp_rows, value, i);
      const RowFactors& rows = factors(value);
      if (x.fla && x.l2norm) dp.denormalise(rows.p_scale[i] * rows.p_norm[i], p);
      store(dp, x.dp, value, i);
    }
  }
};

template <class Element>
__global__ __launch_bounds__(kBlockThreads) void finish_directions(
    const __grid_constant__ BackwardArguments<Element> x) {
  __shared__ KeyHeadSums sums[kBlockThreads / 32];
  const int heads = x.HV / x.group, warp = static_cast<int>(threadIdx.x) / 32;
  const Chunk chunk = chunk_of_slot(x, blockIdx.x / heads);
  DirectionRows<Element> rows(x, chunk, static_cast<int>(blockIdx.x % heads));
  for (int i = warp; i < chunk.count; i += kBlockThreads / 32) rows.finish(i);
  if (threadIdx.x % 32 == 0) sums[warp] = {rows.db, rows.dd};
  __syncthreads();
  if (threadIdx.x > 0) return;
  KeyHeadSums total = {};
  for (const KeyHeadSums& one : sums) total.db += one.db, total.dd += one.dd;
  x.key_head_sums[blockIdx.x] = total;
}

/// The sum of term(slot) over all slots, in a fixed order; the first thread has it.
template <class Term>
__device__ double sum_over_slots(std::int64_t slots, double (&parts)[kBlockThreads], const Term& term) {
  double sum = 0;
  for (std::int64_t slot = threadIdx.x; slot < slots; slot += kBlockThreads) sum += term(slot);
  parts[threadIdx.x] = sum;
  __syncthreads();
  for (int count = kBlockThreads / 2; count > 0; count /= 2) {
    if (threadIdx.x < count) parts[threadIdx.x] += parts[threadIdx.x + count];
    __syncthreads();
  }
  sum = parts[0];
  __syncthreads();
  return sum;
}

template <class Element>
__global__ __launch_bounds__(kBlockThreads) void sum_heads(const __grid_constant__ BackwardArguments<Element> x) {
  __shared__ double parts[kBlockThreads];
  const int value = static_cast<int>(blockIdx.x), heads = x.HV / x.group;
  const auto store = [&](const HeadGradient& to, int head, double sum) {
    if (to.data && threadIdx.x == 0) to.data[head * to.stride] = static_cast<float>(sum);
  };
  const auto of_value_head = [&](double ValueHeadSums::*part) {
    return sum_over_slots(x.slots, parts,
                          [&](std::int64_t slot) { return x.value_head_sums[slot * x.HV + value].*part; });
  };
  store(x.dA_log, value, of_value_head(&ValueHeadSums::dA_log));
  store(x.ddt_bias, value, of_value_head(&ValueHeadSums::ddt_bias));
  const int key = value;
  if (key >= heads) return;
  const bool b_acts = x.p.data == nullptr && !(x.fla && x.l2norm);
  store(x.dd, key,
        sum_over_slots(x.slots, parts, [&](std::int64_t slot) { return x.key_head_sums[slot * heads + key].dd; }));
  store(x.db, key, sum_over_slots(x.slots, parts, [&](std::int64_t slot) {
          double sum = x.key_head_sums[slot * heads + key].db;
          for (int j = key * x.group; b_acts && j < (key + 1) * x.group; ++j) {
            sum += x.value_head_sums[slot * x.HV + j].db;
          }
          return sum;
        }));
}

}  // namespace comba::delta_rule::cuda::generic
