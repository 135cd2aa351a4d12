#pragma once

#include "operators/delta_rule/implementation.h"

namespace comba::delta_rule::cuda::sm90 {

/// "cuda.sm90": chunks of 64 tokens by wgmma and bulk tensor copies, for bf16 and fp16 on Hopper GPUs. Forward only.
Implementation implementation();

/// For tests and benchmarks: the columns of V a block of calls to come has, 16, 32, 64 or 128 (64 where two slices do
/// not fit into a block or V has an odd number of them, 32 where there is no such kernel for a full p); 0, as at the
/// start: chosen by the shapes. Results do not depend on it.
void force_slice_columns(int columns);

/// For tests and benchmarks: the multiprocessors that the kernel prepare of calls to come has to itself while scan
/// follows it; 0: scan waits until it has ended; -1, as at the start: chosen by the shapes. Results do not depend on
/// it.
void force_prepare_multiprocessors(int number);

}  // namespace comba::delta_rule::cuda::sm90
