#pragma once

#include "operators/delta_rule/implementation.h"

namespace comba::delta_rule::cuda::generic {

/// "cuda.generic": the recurrence token by token, for every GPU of compute capability 8.0 and up; decode at the speed
/// of memory. No backward yet.
Implementation implementation();

}  // namespace comba::delta_rule::cuda::generic
