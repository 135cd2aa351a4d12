#include "operators/delta_rule_case.h"

namespace comba::test {

std::vector<delta_rule::Implementation> tested_implementations() { return delta_rule::implementations(); }

double gradient_tolerance(const std::string& tensor, const Buffer&, const Description& description) {
  return tolerance(tensor, description.dtype);
}

}  // namespace comba::test
