#pragma once

#include "operators/delta_rule/implementation.h"

namespace comba::delta_rule::cuda::sm90 {

/// "cuda.sm90": chunks of 64 tokens by wgmma and bulk tensor copies, for bf16 and fp16 on Hopper GPUs. Forward only.
Implementation implementation();

}  // namespace comba::delta_rule::cuda::sm90
