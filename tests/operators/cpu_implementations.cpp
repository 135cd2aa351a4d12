#include "operators/delta_rule_case.h"

namespace comba::test {

std::vector<delta_rule::Implementation> tested_implementations() { return delta_rule::implementations(); }

}  // namespace comba::test
