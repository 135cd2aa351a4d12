#pragma once

#include "operators/delta_rule/reference.h"
#include "operators/delta_rule_case.h"

namespace comba::test {

/// What the definition answers to the inputs as the case holds them, rounded to its dtype: in double, the results kept
/// in fp32 whatever the dtype. Heads and sequences on all threads, so that long cases take seconds.
Outputs exact_forward(Case& c);

/// One value head of sequence n as a call of the definition. `x` is the checked call of the case.
reference::DeltaRule one_head(const Case& c, const delta_rule::Problem& x, std::int64_t n, std::int64_t head);

/// What `forward_of_head` makes of each head of each sequence, o in the given dtype.
Outputs for_each_head(Case& c, DType dtype,
                      reference::DeltaRule::Outputs (*forward_of_head)(const reference::DeltaRule&, DType));

}  // namespace comba::test
