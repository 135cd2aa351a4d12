#pragma once

#include "operators/delta_rule/cuda/sm90/decode_shape.cuh"

/// The warp that brings states to a block and takes them back.
namespace comba::delta_rule::cuda::sm90 {

/// A box of the map, from element (0, column) of a state on; what lies beyond the tensor is 0.
__device__ inline void load_state_box(const CUtensorMap& map, void* to, int column, int head, int state,
                                      ArrivalBarrier& arrived) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5, %6}], "
      "[%2];" ::"r"(bulk_copy::shared_address(to)),
      "l"(&map), "r"(bulk_copy::shared_address(&arrived.bits)), "r"(column), "r"(0), "r"(head), "r"(state)
      : "memory");
}

/// And back; what lies beyond the tensor stays here.
__device__ inline void store_state_box(const CUtensorMap& map, const void* from, int column, int head, int state) {
  asm volatile("cp.async.bulk.tensor.4d.global.shared::cta.bulk_group [%0, {%2, %3, %4, %5}], [%1];" ::"l"(&map),
               "r"(bulk_copy::shared_address(from)), "r"(column), "r"(0), "r"(head), "r"(state)
               : "memory");
}

/// A piece whose state is looked up while the piece before it is brought.
template <class Shape>
struct ComingPiece {
  unsigned number;
  PieceIndex at;
  std::int64_t state = 0, accepted = 0;

  __device__ ComingPiece(const DecodeArguments& x, unsigned number) : number(number), at(x, number, Shape::kColumns) {
    if (number >= x.num_pieces) return;
    state = x.state_indices ? x.state_indices[at.batch * x.state_indices_stride] : at.batch;
    accepted = x.num_accepted ? x.num_accepted[at.batch * x.num_accepted_stride] : x.T;
  }
};

/// One thread. A stage is taken by the next piece once the store of its state has read it, which is waited for only
/// when kLater more have been queued: the copy engine serves them side by side.
template <class Shape>
__device__ void copy_states(const StateDecode& x, typename Shape::Shared& shared) {
  const DecodeArguments& call = x.call;
  ComingPiece<Shape> coming(call, blockIdx.x);
  const auto boxes_of = [&](int column) {  // those that have columns
    return min(Shape::kBoxes, (call.V - column + Shape::kBoxColumns - 1) / Shape::kBoxColumns);
  };
  const auto load = [&](int stage) {
    if (coming.number >= call.num_pieces) return;
    const PieceIndex at = coming.at;
    const bool skipped = coming.state < 0 || coming.state >= call.num_states;
    const bool stored = !skipped && coming.accepted >= 1 && coming.accepted <= call.T;
    shared.orders[stage] = {at.batch, at.head, at.column, skipped, stored, coming.accepted, coming.state};
    ArrivalBarrier& arrived = shared.arrived[stage];
    if (skipped) {
      arrived.arrive();
    } else {
      const int boxes = boxes_of(at.column);
      arrived.announce(boxes * Shape::kBoxBytes);
      for (int box = 0; box < boxes; ++box) {
        load_state_box(x.states, shared.stages[stage][box], at.column + box * Shape::kBoxColumns, at.head,
                       static_cast<int>(coming.state), arrived);
      }
    }
    coming = ComingPiece<Shape>(call, coming.number + gridDim.x);
  };
  for (int stage = 0; stage < Shape::kStages; ++stage) load(stage);
  Turn<Shape::kStages> turn, free;
  int pieces = 0;
  for (unsigned number = blockIdx.x; number < call.num_pieces; number += gridDim.x, turn.advance()) {
    shared.done[turn.place].wait(turn.parity);
    const auto& order = shared.orders[turn.place];
    if (order.stored) {
      for (int box = 0; box < boxes_of(order.column); ++box) {
        store_state_box(x.states, shared.stages[turn.place][box], order.column + box * Shape::kBoxColumns, order.head,
                        static_cast<int>(order.state));
      }
    }
    bulk_copy::commit_stores();
    if (++pieces <= Shape::kLater) continue;
    bulk_copy::wait_until_read<Shape::kLater>();
    load(free.place);
    free.advance();
  }
  bulk_copy::wait_for_stores();
}

}  // namespace comba::delta_rule::cuda::sm90
