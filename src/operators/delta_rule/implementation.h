#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "operators/delta_rule/problem.h"

namespace comba::delta_rule {

/// One way to compute the operator. All pointers are set.
struct Implementation {
  const char* name;  ///< its path with dots, e.g. "cpu.chunk"
  /// Why it cannot run such a call; empty when it can.
  std::string (*refusal)(const Problem&);
  std::int64_t (*forward_workspace)(const Problem&);
  std::int64_t (*backward_workspace)(const Problem&);
  void (*forward)(const Problem&, const DeltaRuleForward&, Workspace);
  void (*backward)(const Problem&, const DeltaRuleBackward&, Workspace);
  void (*decode_step)(const Problem&, const DeltaRuleDecode&);
};

/// Best first, the definition last.
const std::vector<const Implementation*>& implementations();

namespace cpu {
extern const Implementation kChunk;      ///< chunks of 64 tokens, vectorised, parallel
extern const Implementation kReference;  ///< the definition in double, token by token
}  // namespace cpu

}  // namespace comba::delta_rule
