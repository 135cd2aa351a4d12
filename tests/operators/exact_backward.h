#pragma once

#include "operators/delta_rule_case.h"

namespace comba::test {

/// What the adjoint of the definition answers to the inputs as the case holds them, rounded to its dtype: in double,
/// the results kept in fp32 whatever the dtype. Key heads and sequences on all threads.
Gradients exact_backward(Case& c);

}  // namespace comba::test
