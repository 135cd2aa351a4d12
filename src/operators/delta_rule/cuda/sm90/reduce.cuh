#pragma once

#include "operators/delta_rule/cuda/sm90/backward.h"
#include "operators/delta_rule/cuda/sm90/gates.cuh"

/// Of the backward pass: what the chunks add to the gradients of the parameters, summed in a fixed order.
///
/// Grid: HV + H blocks, one a value head (A_log, dt_bias) or a key head (b, d).
namespace comba::delta_rule::cuda::sm90 {

constexpr int kReduceThreads = 256;

/// The sums of both members over `slots` parts that lie `stride` apart, for thread 0.
__device__ inline float2 sum_of_parts(const float2* parts, int slots, int stride) {
  __shared__ double2 sums[kReduceThreads];
  double2 sum = {0, 0};
  for (int slot = threadIdx.x; slot < slots; slot += kReduceThreads) {
    const float2 part = parts[static_cast<std::int64_t>(slot) * stride];
    sum.x += part.x, sum.y += part.y;
  }
  sums[threadIdx.x] = sum;
  for (int half = kReduceThreads / 2; half > 0; half /= 2) {
    __syncthreads();
    if (static_cast<int>(threadIdx.x) >= half) continue;
    sums[threadIdx.x].x += sums[threadIdx.x + half].x;
    sums[threadIdx.x].y += sums[threadIdx.x + half].y;
  }
  return make_float2(static_cast<float>(sums[0].x), static_cast<float>(sums[0].y));
}

__device__ inline void put(const PerHeadGradient& to, int head, float x) {
  if (to.data) to.data[head * to.stride] = x;
}

inline __global__ __launch_bounds__(kReduceThreads) void reduce(const __grid_constant__ BackwardArguments y) {
  const Arguments& x = y.forward;
  const int H = x.HV / x.group, block = static_cast<int>(blockIdx.x), slots = x.sequences.slots;
  if (block < x.HV) {
    const float2 sum = sum_of_parts(reinterpret_cast<const float2*>(y.value_parts) + block, slots, x.HV);
    if (threadIdx.x > 0) return;
    put(y.dA_log, block, sum.x);
    put(y.ddt_bias, block, sum.y);
    return;
  }
  // The correction's strength is d, or in the convention fla d b; there b acts on the feedback only without the l2norm.
  const int key = block - x.HV;
  const float2 sum = sum_of_parts(reinterpret_cast<const float2*>(y.key_parts) + key, slots, H);
  if (threadIdx.x > 0) return;
  const float b = x.b.data ? x.b.data[key * x.b.stride] : 1, d = x.d.data ? x.d.data[key * x.d.stride] : 0;
  const float of_feedback = x.fla && x.l2norm ? 0 : sum.x;
  put(y.db, key, x.fla ? of_feedback + d * sum.y : of_feedback);
  put(y.dd, key, x.fla ? b * sum.y : sum.y);
}

}  // namespace comba::delta_rule::cuda::sm90
