#pragma once

#include <cutlass/arch/reg_reconfig.h>
#include <cutlass/cutlass.h>

/// How the warpgroups of a block that goes along a sequence share their work and keep step.
namespace comba::delta_rule::cuda::sm90 {

/// Where a ring stands.
struct RingPlace {
  int stage = 0, phase = 0;

  template <int kStages>
  __device__ void advance() {
    if (++stage == kStages) stage = 0, phase ^= 1;
  }
};

/// The barriers of a slice, beside number 0 of the whole block.
struct SliceBarriers {
  int first;
  __device__ explicit SliceBarriers(int slice) : first(1 + 6 * slice) {}
  __device__ int state_warps() const { return first; }
  __device__ int output_warps() const { return first + 1; }
  __device__ int state_written() const { return first + 2; }
  __device__ int state_read() const { return first + 3; }
  __device__ int write_written() const { return first + 4; }
  __device__ int write_read() const { return first + 5; }
};

/// Each warpgroup does its part of the work with its share of the registers: a producer, then the states of the slices,
/// then the assistants of these.
template <class Shape, class Work>
__device__ void share_out(const Work& work) {
  const int role = cutlass::canonical_warp_group_idx();
  if (role == 0) {
    cutlass::arch::warpgroup_reg_dealloc<Shape::kProducerRegisters>();
    if (threadIdx.x == 0) work.produce();
    if constexpr (requires { work.save(); }) {
      if (Shape::kSaves && threadIdx.x / 32 == 1) work.save();
    }
  } else if (role <= Shape::kGroups) {
    cutlass::arch::warpgroup_reg_alloc<Shape::kStateRegisters>();
    work.advance_state(Shape::kGroups == 1 ? 0 : role - 1);
  } else {
    cutlass::arch::warpgroup_reg_dealloc<Shape::kAssistantRegisters>();
    work.assist(Shape::kGroups == 1 ? 0 : role - 1 - Shape::kGroups);
  }
}

}  // namespace comba::delta_rule::cuda::sm90
