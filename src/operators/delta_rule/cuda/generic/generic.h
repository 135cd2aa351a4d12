#pragma once

#include "operators/delta_rule/implementation.h"

namespace comba::delta_rule::cuda::generic {

/// "cuda.generic": every GPU of compute capability 8.0 and up, every call. The chunk form for backward, and for forward
/// in bf16 and f16; the recurrence token by token for forward in f32; decode at the speed of memory.
Implementation implementation();

}  // namespace comba::delta_rule::cuda::generic
