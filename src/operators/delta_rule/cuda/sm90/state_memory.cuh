#pragma once

#include "operators/delta_rule/cuda/sm90/tiles.cuh"

/// A slice of a state [N, HV, K, V] between memory and the accumulators of a product.
namespace comba::delta_rule::cuda::sm90 {

/// Calls f(pair, m, i, half) for each pair of neighbours that a thread holds and that exists.
template <int kK, int kSlice, class F>
__device__ void for_each_state_pair(const Arguments& x, const States& states, int n, int head, int first_v,
                                    const F& f) {
  if (states.data == nullptr) return;
  float* row = states.data + n * states.stride[0] + head * states.stride[1] + first_row() * states.stride[2] + first_v +
               first_column();
#pragma unroll
  for (int m = 0; m < kK / 64; ++m) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
#pragma unroll
      for (int i = 0; i < kSlice / 8; ++i) {
        const bool exists = 64 * m + first_row() + 8 * half < x.K && first_v + 8 * i + first_column() < x.V;
        if (exists) f(*reinterpret_cast<float2*>(row + 8 * i), m, i, half);
      }
      row += (half == 0 ? 8 : 56) * states.stride[2];
      asm volatile("" : "+l"(row));  // one address at a time: all of them do not fit in registers
    }
  }
}

/// The columns from `first_v` on of sequence n and a value head, where there is such a state.
template <int kK, int kSlice, class State>
__device__ void load_state(const Arguments& x, const States& states, int n, int head, int first_v, State& state) {
  for_each_state_pair<kK, kSlice>(x, states, n, head, first_v, [&](const float2& pair, int m, int i, int half) {
    at(state, m, i, half, 0) = pair.x, at(state, m, i, half, 1) = pair.y;
  });
}

template <int kK, int kSlice, class State>
__device__ void store_state(const Arguments& x, const States& states, int n, int head, int first_v,
                            const State& state) {
  for_each_state_pair<kK, kSlice>(x, states, n, head, first_v, [&](float2& pair, int m, int i, int half) {
    pair = make_float2(at(state, m, i, half, 0), at(state, m, i, half, 1));
  });
}

}  // namespace comba::delta_rule::cuda::sm90
