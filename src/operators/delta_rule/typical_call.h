#pragma once

#include <algorithm>
#include <string>
#include <vector>

#include "comba/delta_rule.h"

/// For those who tell which implementation runs the operator.
namespace comba {

/// A call as models make them, but of no tokens.
inline DeltaRuleForward typical_delta_rule_call() {
  const View rows(nullptr, DType::f32, {1, 0, 1, 128}), gates(nullptr, DType::f32, {1, 0, 1});
  return {.inputs = {.q = rows, .k = rows, .v = rows, .beta = gates, .g = gates}, .o = rows};
}

/// Name of the first that does not refuse its call. At least one, the definition, refuses none on the CPU.
inline std::string first_choice(const std::vector<DeltaRuleImplementation>& list) {
  return std::ranges::find(list, "", &DeltaRuleImplementation::refusal)->name;
}

}  // namespace comba
