#pragma once

#include <cuda_runtime_api.h>

#include "operators/delta_rule/cuda/sm90/arguments.h"

namespace comba::delta_rule::cuda::sm90 {

/// How scan cuts the values: a block has `groups` slices of `columns` each.
struct SliceChoice {
  int columns, groups;
};

/// Queues prepare and scan; K is at most `padded_K`, one of 64, 128, 256.
void launch_forward_bf16(const Arguments& x, int padded_K, SliceChoice slices, cudaStream_t stream);
void launch_forward_f16(const Arguments& x, int padded_K, SliceChoice slices, cudaStream_t stream);

/// Queues both in one kernel, without a full p and without what is saved for the backward pass; K is at most
/// `padded_K`, 64 or 128, and two slices of 32 or 64 columns have all of V.
void launch_fused_bf16(const Arguments& x, int padded_K, SliceChoice slices, cudaStream_t stream);
void launch_fused_f16(const Arguments& x, int padded_K, SliceChoice slices, cudaStream_t stream);

}  // namespace comba::delta_rule::cuda::sm90
