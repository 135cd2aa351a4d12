#pragma once

#include "operators/model_step/cuda/dependent_launch.cuh"
#include "operators/model_step/cuda/state_rule.cuh"

/// One token through the states of one layer, by the rule of state_rule.cuh.
///
/// Grid: slices of kSlice columns, value heads, rows of the step. Block: 256 threads; each holds 4 columns of
/// K / kRowStep rows of the state, fetched before the wait.
///
///     state of the slice | wait | q, k | products | shuffles | barrier | u, o | S
///
/// Shared memory: sums of each warp.
namespace comba::model_step::cuda {

template <class StateElement>
__global__ __launch_bounds__(256, 4) void update_state(const StateUpdate<StateElement> x) {
  using Vector = StateVector<StateElement>;
  __shared__ WarpSums<kSlice> shared;
  const int slice = static_cast<int>(blockIdx.x), head = static_cast<int>(blockIdx.y),
            row = static_cast<int>(blockIdx.z);
  const int column = slice * kSlice + static_cast<int>(threadIdx.x) % (kSlice / kLaneColumns) * kLaneColumns;
  const int first_row = static_cast<int>(threadIdx.x) / (kSlice / kLaneColumns);
  const std::int32_t slot = x.slots[row];
  const bool is_there = slot >= 0 && slot < x.num_slots;
  const std::int64_t state = static_cast<std::int64_t>(is_there ? slot : 0) * x.HV + head;
  StateElement* const mine = x.state + ((state * (x.V / kSlice) + slice) * x.K + first_row) * kSlice + column % kSlice;

  let_next_begin();
  typename Vector::Raw raw[kMostRows];
#pragma unroll
  for (int i = 0; i < kMostRows; ++i) {
    raw[i] = {};
    if (is_there && first_row + kRowStep * i < x.K) {
      raw[i] = __ldcs(reinterpret_cast<const typename Vector::Raw*>(mine + kRowStep * i * kSlice));
    }
  }
  const HeadConstants constants = head_constants(x, head, column);
  wait_for_previous();
  if (!is_there) return;  // `mixed` keeps what it had: nobody reads it

  const bf16* const projected = x.projected + static_cast<std::int64_t>(row) * x.stride;
  const bf16* const q = projected + head / (x.HV / x.H) * x.K;
  const bf16* const k = q + x.H * x.K;
  const bf16* const v = projected + 2 * x.H * x.K + head * x.V + column;
  const bf16* const logits = projected + 2 * x.H * x.K + x.HV * x.V * (x.gate == Gate::none ? 1 : 2) + head;
  const float step = load_fresh_one(logits), a = load_fresh_one(logits + x.HV);
  const uint2 values = __ldcg(reinterpret_cast<const uint2*>(v));
  uint2 gate{};
  if (x.gate != Gate::none) gate = __ldcg(reinterpret_cast<const uint2*>(v + x.HV * x.V));
  float keys[kMostRows], queries[kMostRows];
#pragma unroll
  for (int i = 0; i < kMostRows; ++i) {
    const bool exists = first_row + kRowStep * i < x.K;
    keys[i] = exists ? load_fresh_one(k + first_row + kRowStep * i) : 0;
    queries[i] = exists ? load_fresh_one(q + first_row + kRowStep * i) : 0;
  }
  __syncthreads();  // all loads are on their way before the first is waited for
  RowSums sums;
#pragma unroll
  for (int i = 0; i < kMostRows; ++i) {
    float state[kLaneColumns];
    Vector::unpack(raw[i], state);
    sums.add(keys[i], queries[i] - constants.correction * keys[i], state);
  }
  const RowSums all = sum_over_block(sums, shared);
  const Outcome outcome = outcome_of(x, all, constants, gates_of(x, constants, a, step), values, gate);
#pragma unroll
  for (int i = 0; i < kMostRows; ++i) {
    float state[kLaneColumns];
    Vector::unpack(raw[i], state);
    outcome.update(keys[i], state);
    if (first_row + kRowStep * i < x.K) {
      __stcs(reinterpret_cast<typename Vector::Raw*>(mine + kRowStep * i * kSlice), Vector::packed(state));
    }
  }
  write_outcome<kSlice>(x, outcome, row, head, column);
}

}  // namespace comba::model_step::cuda
