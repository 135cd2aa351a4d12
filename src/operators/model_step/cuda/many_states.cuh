#pragma once

#include "operators/model_step/cuda/state_update.cuh"

/// What state_update.cuh computes, to the bit, for so many states that the memory's rate decides.
///
/// There each block waits for its part of a state, computes, and ends; while it computes it reads nothing. Here as many
/// blocks as the GPU holds at once go through all parts, each twice as wide, and the next one is on its way meanwhile.
/// Grid: blocks. Block: 256 threads; each has 4 columns of rows r, r + 1, r + kRowStep, r + 1 + kRowStep ..., whose
/// sums are added up in the order of the other kernel.
///
///     first parts of states | wait | { q, k, v, gates | part | products | shuffles | barrier | u, o | S | next part }
///     ...
///
/// Shared memory: kStages times [8][256] of 4 numbers of the state; sums of each warp, twice in turn, so that one
/// barrier a part is enough. Numerics: those of the other kernel.
namespace comba::model_step::cuda {

inline constexpr int kWideSlice = 2 * kSlice, kWideStages = 2, kWideRows = 2 * kMostRows;

struct WideSums {
  float recalled[8][kWideSlice], read[8][kWideSlice];
  float qq[8], kk[8], qk[8];
};

template <class StateElement>
struct WideShared {
  typename StateVector<StateElement>::Raw state[kWideStages][kWideRows]
                                               [256];  // each thread reads what it copied itself
  WideSums sums[2];
};

__device__ inline RowSums sum_over_block(RowSums sums, WideSums& shared) {
  constexpr int kColumnLanes = kWideSlice / kLaneColumns;
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const auto over_lanes = [](float& x) {
#pragma unroll
    for (int distance = kColumnLanes; distance < 32; distance *= 2) x += __shfl_xor_sync(~0u, x, distance);
  };
#pragma unroll
  for (int c = 0; c < kLaneColumns; ++c) over_lanes(sums.recalled[c]), over_lanes(sums.read[c]);
  over_lanes(sums.qq), over_lanes(sums.kk), over_lanes(sums.qk);
  const int column = lane % kColumnLanes * kLaneColumns;
  const auto vector = [](float* x) { return reinterpret_cast<float4*>(x); };
  if (lane < kColumnLanes) {
    *vector(&shared.recalled[warp][column]) =
        make_float4(sums.recalled[0], sums.recalled[1], sums.recalled[2], sums.recalled[3]);
    *vector(&shared.read[warp][column]) = make_float4(sums.read[0], sums.read[1], sums.read[2], sums.read[3]);
  }
  if (lane == 0) shared.qq[warp] = sums.qq, shared.kk[warp] = sums.kk, shared.qk[warp] = sums.qk;
  __syncthreads();
  RowSums all;
#pragma unroll
  for (int w = 0; w < 8; ++w) {
    const float4 recalled = *vector(&shared.recalled[w][column]), read = *vector(&shared.read[w][column]);
    all.recalled[0] += recalled.x, all.recalled[1] += recalled.y;
    all.recalled[2] += recalled.z, all.recalled[3] += recalled.w;
    all.read[0] += read.x, all.read[1] += read.y, all.read[2] += read.z, all.read[3] += read.w;
    all.qq += shared.qq[w], all.kk += shared.kk[w], all.qk += shared.qk[w];
  }
  return all;
}

/// Precondition: K is even, and V a multiple of kWideSlice.
template <class StateElement>
__global__ __launch_bounds__(256, 3) void update_many_states(const StateUpdate<StateElement> x, const int rows) {
  using Vector = StateVector<StateElement>;
  extern __shared__ float4 memory[];
  auto& shared = *reinterpret_cast<WideShared<StateElement>*>(memory);
  const int thread = static_cast<int>(threadIdx.x);
  const int lane_column = thread % (kWideSlice / kLaneColumns) * kLaneColumns;
  const int first_row = thread / (kWideSlice / kLaneColumns) * 2;
  const int slices = x.V / kWideSlice, num_items = rows * x.HV * slices, num_blocks = static_cast<int>(gridDim.x);
  struct Item {
    int slice, head, row, slot;
  };
  const auto item_of = [&](int number) {
    Item item{number % slices, number / slices % x.HV, number / slices / x.HV, -1};
    const int slot = number < num_items ? x.slots[item.row] : -1;
    item.slot = slot < x.num_slots ? slot : -1;
    return item;
  };
  const auto place_of = [&](const Item& item) {
    const std::int64_t state = static_cast<std::int64_t>(item.slot) * x.HV + item.head;
    return x.state + (state * x.K + first_row) * x.V + item.slice * kWideSlice + lane_column;
  };
  // Row i of this thread, of kWideRows, behind its first one.
  const auto row_of = [](int i) { return kRowStep * (i / 2) + i % 2; };
  const auto copy_state = [&](int stage, const Item& item) {
    if (item.slot >= 0) {
      const StateElement* const from = place_of(item);
#pragma unroll
      for (int i = 0; i < kWideRows; ++i) {
        if (first_row + row_of(i) < x.K) {
          copy_async(shared.state[stage][i][thread], from + static_cast<std::int64_t>(row_of(i)) * x.V);
        }
      }
    }
    commit_copies();
  };
  /// What a part needs of q, k, v, the gate, step size and decay.
  struct Inputs {
    unsigned keys[kMostRows], queries[kMostRows];  // of two rows
    uint2 values, gate;
    float step, a;
  };
  const auto fetch = [&](const Item& item) {
    Inputs inputs{};
    if (item.slot < 0) return inputs;
    const bf16* const projected = x.projected + static_cast<std::int64_t>(item.row) * x.stride;
    const bf16* const q = projected + item.head / (x.HV / x.H) * x.K + first_row;
    const bf16* const k = q + x.H * x.K;
    const bf16* const v = projected + 2 * x.H * x.K + item.head * x.V + item.slice * kWideSlice + lane_column;
    const bf16* const gates = projected + 2 * x.H * x.K + x.HV * x.V * (x.gate == Gate::none ? 1 : 2) + item.head;
#pragma unroll
    for (int i = 0; i < kMostRows; ++i) {
      if (first_row + kRowStep * i < x.K) {
        inputs.keys[i] = __ldcg(reinterpret_cast<const unsigned*>(k + kRowStep * i));
        inputs.queries[i] = __ldcg(reinterpret_cast<const unsigned*>(q + kRowStep * i));
      }
    }
    inputs.values = __ldcg(reinterpret_cast<const uint2*>(v));
    if (x.gate != Gate::none) inputs.gate = __ldcg(reinterpret_cast<const uint2*>(v + x.HV * x.V));
    inputs.step = load_fresh_one(gates), inputs.a = load_fresh_one(gates + x.HV);
    return inputs;
  };

  let_next_begin();
  int number = static_cast<int>(blockIdx.x), stage = 0, turn = 0;
  Item item = item_of(number), next = item_of(number + num_blocks);
  copy_state(0, item);
  copy_state(1, next);
  wait_for_previous();
  Inputs inputs = fetch(item);

  for (; number < num_items; number += num_blocks, stage ^= 1) {
    const Inputs now = inputs;
    const Item after = item_of(number + 2 * num_blocks);
    inputs = fetch(next);
    if (item.slot >= 0) {  // otherwise `mixed` keeps what it had: nobody reads it
      const int head = item.head, key_head = head / (x.HV / x.H), column = item.slice * kWideSlice + lane_column;
      const float b = x.b ? x.b[key_head] : 1;
      const float correction = (x.d ? x.d[key_head] : 0) * (x.corrects_by_p ? b : 1);
      const float rate = -expf(x.A_log[head]), shifted = now.a + x.dt_bias[head];
      const uint2 weight = *reinterpret_cast<const uint2*>(x.norm + column);
      wait_for_copies<kWideStages - 1>();
      RowSums sums[2];  // of the first and of the second of each pair of rows
#pragma unroll
      for (int i = 0; i < kWideRows; ++i) {
        RowSums& sum = sums[i % 2];
        const float key = i % 2 ? high(now.keys[i / 2]) : low(now.keys[i / 2]);
        const float query = (i % 2 ? high(now.queries[i / 2]) : low(now.queries[i / 2])) - correction * key;
        float state[kLaneColumns] = {};
        if (first_row + row_of(i) < x.K) Vector::unpack(shared.state[stage][i][thread], state);
#pragma unroll
        for (int c = 0; c < kLaneColumns; ++c) {
          sum.recalled[c] = fmaf(key, state[c], sum.recalled[c]);
          sum.read[c] = fmaf(query, state[c], sum.read[c]);
        }
        sum.qq = fmaf(query, query, sum.qq), sum.kk = fmaf(key, key, sum.kk), sum.qk = fmaf(query, key, sum.qk);
      }
#pragma unroll
      for (int c = 0; c < kLaneColumns; ++c) {
        sums[0].recalled[c] += sums[1].recalled[c], sums[0].read[c] += sums[1].read[c];
      }
      sums[0].qq += sums[1].qq, sums[0].kk += sums[1].kk, sums[0].qk += sums[1].qk;
      const float g = rate * (fmaxf(shifted, 0) + log1pf(expf(-fabsf(shifted))));
      const float alpha = expf(g < -128 ? -128 : g), beta = x.beta_scale / (1 + expf(-now.step));
      const RowSums all = sum_over_block(sums[0], shared.sums[turn]);
      turn ^= 1;

      const float rq = x.normalizes ? rsqrtf(all.qq + x.eps) : 1, rk = x.normalizes ? rsqrtf(all.kk + x.eps) : 1;
      const float rp = x.normalizes && x.corrects_by_p ? rk : b * rk;  // p = rp k
      const float seen = x.decays_first ? alpha : 1;
      float values[kLaneColumns], gate[kLaneColumns], weights[kLaneColumns];
      StateVector<bf16>::unpack(now.values, values);
      StateVector<bf16>::unpack(now.gate, gate);
      StateVector<bf16>::unpack(weight, weights);
      float u[kLaneColumns], y[kLaneColumns], squares = 0;
#pragma unroll
      for (int c = 0; c < kLaneColumns; ++c) {
        u[c] = beta * (values[c] - seen * rp * all.recalled[c]);
        const float o = as_float(as_bf16(x.scale * (alpha * rq * all.read[c] + u[c] * (rq * rk * all.qk))));
        squares = fmaf(o, o, squares);
        const float f = x.gate == Gate::none ? 1 : x.gate == Gate::silu ? silu(gate[c]) : sigmoid(gate[c]);
        y[c] = o * weights[c] * f;
      }
      StateElement* const mine = place_of(item);
#pragma unroll
      for (int i = 0; i < kWideRows; ++i) {
        if (first_row + row_of(i) >= x.K) continue;
        const float key = i % 2 ? high(now.keys[i / 2]) : low(now.keys[i / 2]);
        float state[kLaneColumns];
        Vector::unpack(shared.state[stage][i][thread], state);
#pragma unroll
        for (int c = 0; c < kLaneColumns; ++c) state[c] = fmaf(rk * key, u[c], alpha * state[c]);
        __stcs(reinterpret_cast<typename Vector::Raw*>(mine + static_cast<std::int64_t>(row_of(i)) * x.V),
               Vector::packed(state));
      }
      if (thread < 32) {
#pragma unroll
        for (int distance = 1; distance < kSlice / kLaneColumns; distance *= 2) {
          squares += __shfl_xor_sync(~0u, squares, distance);
        }
        const std::int64_t place = static_cast<std::int64_t>(item.row) * x.HV + head;
        if (lane_column % kSlice == 0 && thread < kWideSlice / kLaneColumns) {
          x.squares[place * kSlices + column / kSlice] = squares;
        }
        if (thread < kWideSlice / kLaneColumns) {
          bf16* const to = x.mixed + static_cast<std::int64_t>(item.row) * x.mixed_stride + head * x.V + column;
          *reinterpret_cast<uint2*>(to) = StateVector<bf16>::packed(y);
        }
      }
    }
    copy_state(stage, after);
    item = next, next = after;
  }
}

}  // namespace comba::model_step::cuda
