#pragma once

#include <cuda_runtime_api.h>

#include "operators/delta_rule/cuda/sm90/arguments.h"

namespace comba::delta_rule::cuda::sm90 {

/// How scan cuts the values: a block has `groups` slices of `columns` each.
struct SliceChoice {
  int columns, groups;
};

/// The same where states are left for the backward pass, and there: 32 columns a block; 64, or 128 for K <= 128.
enum class SavingSlices { narrow, wide };

/// Columns of a slice.
constexpr int columns_of(SavingSlices slices) { return slices == SavingSlices::narrow ? 32 : 64; }

/// Queues prepare and scan; K is at most `padded_K`, one of 64, 128, 256.
void launch_forward_bf16(const Arguments& x, int padded_K, SliceChoice slices, cudaStream_t stream);
void launch_forward_f16(const Arguments& x, int padded_K, SliceChoice slices, cudaStream_t stream);

/// The same, leaving gates, states and writes. Without a full p.
void launch_saving_forward_bf16(const Arguments& x, int padded_K, SavingSlices slices, cudaStream_t stream);
void launch_saving_forward_f16(const Arguments& x, int padded_K, SavingSlices slices, cudaStream_t stream);

}  // namespace comba::delta_rule::cuda::sm90
