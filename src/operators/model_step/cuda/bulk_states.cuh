#pragma once

#include "operators/cuda/bulk_copy.cuh"
#include "operators/model_step/cuda/dependent_launch.cuh"
#include "operators/model_step/cuda/state_rule.cuh"

/// What state_update.cuh computes, to the bit, for so many states that the memory's rate decides.
///
/// There each block waits for its slice, computes, and ends; while it computes it reads nothing. Here few blocks go
/// through all parts, of two slices each, which the copy engine fetches ahead and takes back, in one piece of memory
/// each. Grid: blocks. Block: 256 threads; each has 4 columns of rows r, r + 1, r + kRowStep, r + 1 + kRowStep ..,
/// whose sums are added up in the order of the other kernel. Threads of the second slice take r + 1 first, so that a
/// quarter of a warp meets all banks: rows are half of them, slices start at the same one.
///
///     first parts | wait | { part, q, k, v | products | shuffles | barrier | u, o | S | barrier | store }
///                            a stage is free for the part after next but kStages - 2 when its store has read it
///
/// Shared memory: kStages parts of 32 columns, [2][K][16], with q, k, v and gate; sums of each warp; a barrier a stage.
/// Numerics: those of the other kernel.
namespace comba::model_step::cuda {

using namespace bulk_copy;

inline constexpr int kPart = 2 * kSlice, kPartRows = 2 * kMostRows;  ///< columns; rows of a thread

/// A part, and what it needs of its text and head.
template <class StateElement>
struct BulkStage {
  StateElement state[kPart * 256];
  bf16 q[256], k[256], v[kPart], gate[kPart];
};

template <class StateElement, int kStages>
struct BulkShared {
  BulkStage<StateElement> stages[kStages];
  WarpSums<kPart> sums;
  ArrivalBarrier arrived[kStages];
};

/// Precondition: K is a multiple of 8, and V of kPart.
template <class StateElement, int kStages>
__global__ __launch_bounds__(256, 3) void update_bulk_states(const StateUpdate<StateElement> x, const int rows) {
  using Vector = StateVector<StateElement>;
  using Raw = typename Vector::Raw;
  extern __shared__ float4 memory[];
  auto& shared = *reinterpret_cast<BulkShared<StateElement, kStages>*>(memory);
  const int thread = static_cast<int>(threadIdx.x);
  const int lane_column = thread % (kPart / kLaneColumns) * kLaneColumns;
  const int first_row = thread / (kPart / kLaneColumns) * 2;
  const int is_second = lane_column / kSlice;  // slice of the two
  const int parts = x.V / kPart, num_items = rows * x.HV * parts, num_blocks = static_cast<int>(gridDim.x);
  const unsigned state_bytes = static_cast<unsigned>(x.K) * kPart * sizeof(StateElement);
  struct Item {
    int part, head, row, slot;
  };
  const auto item_of = [&](int number) {
    Item item{number % parts, number / parts % x.HV, number / parts / x.HV, -1};
    const int slot = number < num_items ? x.slots[item.row] : -1;
    item.slot = slot < x.num_slots ? slot : -1;
    return item;
  };
  const auto place_of = [&](const Item& item) {
    const std::int64_t state = static_cast<std::int64_t>(item.slot) * x.HV + item.head;
    return x.state + (state * parts + item.part) * x.K * kPart;
  };
  // Row i of this thread, of kPartRows, behind its first one.
  const auto row_of = [&](int i) { return kRowStep * (i / 2) + (i % 2 ^ is_second); };
  const auto exists = [&](int i) { return first_row + kRowStep * (i / 2) < x.K; };  // K is even
  const int base = (is_second * x.K + first_row) * kSlice + lane_column % kSlice;
  const auto row_of_part = [&](BulkStage<StateElement>& stage, int i) {
    return reinterpret_cast<Raw*>(stage.state + base + row_of(i) * kSlice);
  };
  const auto projected_of = [&](const Item& item) {
    return x.projected + static_cast<std::int64_t>(item.row) * x.stride;
  };
  /// Of step size and decay.
  struct Logits {
    float step, a;
  };
  const auto fetch_logits = [&](const Item& item) {
    if (item.slot < 0) return Logits{};
    const bf16* const from =
        projected_of(item) + 2 * x.H * x.K + x.HV * x.V * (x.gate == Gate::none ? 1 : 2) + item.head;
    return Logits{load_fresh_one(from), load_fresh_one(from + x.HV)};
  };

  let_next_begin();
  const std::uint64_t policy = passing_through();
  // For one thread. What is announced for nobody's rows is nothing, so that the turns of all stages count the same.
  const auto load_state = [&](int stage, const Item& item) {
    if (item.slot < 0) return;
    shared.arrived[stage].expect(state_bytes);
    bulk_load(shared.stages[stage].state, place_of(item), state_bytes, shared.arrived[stage], policy);
  };
  const auto load_inputs = [&](int stage, const Item& item) {
    ArrivalBarrier& arrived = shared.arrived[stage];
    if (item.slot < 0) return arrived.announce(0);
    const unsigned row_bytes = static_cast<unsigned>(x.K) * sizeof(bf16), part_bytes = kPart * sizeof(bf16);
    const bf16* const q = projected_of(item) + item.head / (x.HV / x.H) * x.K;
    const bf16* const v = projected_of(item) + 2 * x.H * x.K + item.head * x.V + item.part * kPart;
    BulkStage<StateElement>& to = shared.stages[stage];
    arrived.announce(2 * row_bytes + (x.gate == Gate::none ? 1 : 2) * part_bytes);
    bulk_load(to.q, q, row_bytes, arrived);
    bulk_load(to.k, q + x.H * x.K, row_bytes, arrived);
    bulk_load(to.v, v, part_bytes, arrived);
    if (x.gate != Gate::none) bulk_load(to.gate, v + x.HV * x.V, part_bytes, arrived);
  };
  int number = static_cast<int>(blockIdx.x);
  if (thread == 0) {
    for (ArrivalBarrier& barrier : shared.arrived) barrier.init(1);
    ArrivalBarrier::make_visible();
    for (int stage = 0; stage < kStages; ++stage) load_state(stage, item_of(number + stage * num_blocks));
  }
  Item item = item_of(number), next = item_of(number + num_blocks);
  wait_for_previous();
  if (thread == 0) {
    for (int stage = 0; stage < kStages; ++stage) load_inputs(stage, item_of(number + stage * num_blocks));
  }
  Logits logits = fetch_logits(item);

  int stage = 0;
  unsigned parity = 0;
  for (int turn = 0; number < num_items; ++turn, number += num_blocks) {
    const Logits now = logits;
    const Item after = item_of(number + 2 * num_blocks);
    logits = fetch_logits(next);
    const int column = item.part * kPart + lane_column;
    const HeadConstants constants = head_constants(x, item.head, column);
    shared.arrived[stage].wait(parity);
    if (item.slot >= 0) {  // otherwise `mixed` keeps what it had: nobody reads it
      BulkStage<StateElement>& part = shared.stages[stage];
      // Of a pair of rows the upper half first where the second is.
      const auto of_pair = [&](const bf16* pairs, int i) {
        const unsigned pair = *reinterpret_cast<const unsigned*>(pairs + first_row + kRowStep * (i / 2));
        const unsigned ordered = __byte_perm(pair, 0, is_second ? 0x1032 : 0x3210);
        return i % 2 ? high(ordered) : low(ordered);
      };
      RowSums sums[2];  // of the even and of the odd rows, or the other way round
#pragma unroll
      for (int i = 0; i < kPartRows; ++i) {
        if (!exists(i)) continue;
        float state[kLaneColumns];
        Vector::unpack(*row_of_part(part, i), state);
        const float key = of_pair(part.k, i);
        sums[i % 2].add(key, of_pair(part.q, i) - constants.correction * key, state);
      }
      sums[0].add(sums[1]);
      const uint2 values = *reinterpret_cast<const uint2*>(part.v + lane_column);
      uint2 gate{};
      if (x.gate != Gate::none) gate = *reinterpret_cast<const uint2*>(part.gate + lane_column);
      const Gates gates = gates_of(x, constants, now.a, now.step);
      const RowSums all = sum_over_block(sums[0], shared.sums);
      const Outcome outcome = outcome_of(x, all, constants, gates, values, gate);
#pragma unroll
      for (int i = 0; i < kPartRows; ++i) {
        if (!exists(i)) continue;
        float state[kLaneColumns];
        Vector::unpack(*row_of_part(part, i), state);
        outcome.update(of_pair(part.k, i), state);
        *row_of_part(part, i) = Vector::packed(state);
      }
      publish_shared();
      __syncthreads();
      if (thread == 0) bulk_store(place_of(item), part.state, state_bytes, policy);
      write_outcome<kPart>(x, outcome, item.row, item.head, column);
    } else {
      __syncthreads();  // nobody may be a whole turn of the stages behind
    }
    if (thread == 0) {
      commit_stores();
      if (turn > 0) {  // the stage before this one, when its store has read it
        wait_until_read<1>();
        const int free = stage > 0 ? stage - 1 : kStages - 1;
        const Item later = item_of(number + (kStages - 1) * num_blocks);
        load_state(free, later), load_inputs(free, later);
      }
    }
    item = next, next = after;
    if (++stage == kStages) stage = 0, parity ^= 1;
  }
  if (thread == 0) wait_for_stores();
}

}  // namespace comba::model_step::cuda
