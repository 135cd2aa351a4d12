#pragma once

/// How the warpgroups of a block that goes along a sequence keep step.
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

}  // namespace comba::delta_rule::cuda::sm90
