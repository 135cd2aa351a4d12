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

/// Whether the forward pass is one kernel.
enum class Fusing { never, wherever_possible };

/// For tests and benchmarks: holds for calls to come; at the start: never. Where it is possible: K up to 128, V from 8
/// to 128, no full p, nothing saved for the backward pass. Results do not depend on it, to the bit.
void force_fusing(Fusing when);

/// When the backward kernel gradients begins before reverse, the one before it, has ended.
enum class Following { chosen, never, wherever_possible };

/// For tests and benchmarks: holds for calls to come; at the start: chosen by the shapes. Results do not depend on it.
void force_following(Following when);

}  // namespace comba::delta_rule::cuda::sm90
