#pragma once

#include "operators/model_step/cuda/dependent_launch.cuh"
#include "operators/model_step/cuda/state_rule.cuh"

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

template <class StateElement>
struct WideShared {
  // Each thread reads what it copied itself.
  typename StateVector<StateElement>::Raw state[kWideStages][kWideRows][256];
  WarpSums<kWideSlice> sums[2];
};

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
    const std::int64_t slice = state * (x.V / kSlice) + item.slice * 2 + lane_column / kSlice;
    return x.state + (slice * x.K + first_row) * kSlice + lane_column % kSlice;
  };
  // Row i of this thread, of kWideRows, behind its first one.
  const auto row_of = [](int i) { return kRowStep * (i / 2) + i % 2; };
  const auto copy_state = [&](int stage, const Item& item) {
    if (item.slot >= 0) {
      const StateElement* const from = place_of(item);
#pragma unroll
      for (int i = 0; i < kWideRows; ++i) {
        if (first_row + row_of(i) < x.K) {
          copy_async(shared.state[stage][i][thread], from + row_of(i) * kSlice);
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
      const int column = item.slice * kWideSlice + lane_column;
      const HeadConstants constants = head_constants(x, item.head, column);
      const auto key_of = [&](int i) { return i % 2 ? high(now.keys[i / 2]) : low(now.keys[i / 2]); };
      const Gates gates = gates_of(x, constants, now.a, now.step);
      wait_for_copies<kWideStages - 1>();
      RowSums sums[2];  // of the first and of the second of each pair of rows
#pragma unroll
      for (int i = 0; i < kWideRows; ++i) {
        const float query = i % 2 ? high(now.queries[i / 2]) : low(now.queries[i / 2]);
        float state[kLaneColumns] = {};
        if (first_row + row_of(i) < x.K) Vector::unpack(shared.state[stage][i][thread], state);
        sums[i % 2].add(key_of(i), query - constants.correction * key_of(i), state);
      }
      sums[0].add(sums[1]);
      const RowSums all = sum_over_block(sums[0], shared.sums[turn]);
      turn ^= 1;
      const Outcome outcome = outcome_of(x, all, constants, gates, now.values, now.gate);
      write_outcome<kWideSlice>(x, outcome, item.row, item.head, column);
#pragma unroll
      for (int i = 0; i < kWideRows; ++i) {
        if (first_row + row_of(i) >= x.K) continue;
        float state[kLaneColumns];
        Vector::unpack(shared.state[stage][i][thread], state);
        outcome.update(key_of(i), state);
        __stcs(reinterpret_cast<typename Vector::Raw*>(place_of(item) + row_of(i) * kSlice), Vector::packed(state));
      }
    }
    copy_state(stage, after);
    item = next, next = after;
  }
}

}  // namespace comba::model_step::cuda
