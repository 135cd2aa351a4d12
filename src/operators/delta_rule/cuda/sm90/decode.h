#pragma once

#include <string>

#include "operators/delta_rule/problem.h"

namespace comba::delta_rule::cuda::sm90 {

/// Why the kernel for new tokens cannot do a call of decode on a Hopper GPU; empty when it can.
std::string decode_refusal(const Problem& x);
/// Queues it. The same bits as cuda.generic, from which it has the preparation of a token (generic/prepare.cuh).
void decode(const Problem& x, const DeltaRuleDecode& args);

}  // namespace comba::delta_rule::cuda::sm90
