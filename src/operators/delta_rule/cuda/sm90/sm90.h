#pragma once

#include "operators/delta_rule/implementation.h"

namespace comba::delta_rule::cuda::sm90 {

/// "cuda.sm90": chunks of 64 tokens by wgmma and bulk tensor copies, for bf16 and fp16 on Hopper GPUs; decode, for fp32
/// too, with states moved by bulk tensor copies.
Implementation implementation();

/// For tests and benchmarks: the columns of V a block of calls to come has, 16, 32, 64 or 128 (64 where two slices do
/// not fit into a block or V has an odd number of them, 32 where there is no such kernel for a full p); 0, as at the
/// start: chosen by the shapes. Results do not depend on it.
void force_slice_columns(int columns);

/// When the backward kernel gradients begins before reverse, the one before it, has ended.
enum class Following { chosen, never, wherever_possible };

/// For tests and benchmarks: holds for calls to come; at the start: chosen by the shapes. Results do not depend on it.
void force_following(Following when);

}  // namespace comba::delta_rule::cuda::sm90
