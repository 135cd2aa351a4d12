#pragma once

#include "operators/delta_rule_case.h"

namespace comba::test {

/// The chunk form (README.md of the operator, section 4, with the inverse M) as one would write it down with matrices
/// in the dtype of the case: what is stored between two products is rounded to it, sums and the state that is carried
/// on are not. Its error is the yardstick of implementations in that dtype: none may have twice as much.
Outputs naive_forward(Case& c);

}  // namespace comba::test
