#pragma once

#include "operators/delta_rule/implementation.h"

/// One implementation's part in a call and what it has in common with the others: on a GPU the borders of packed
/// sequences are looked at behind it, and the start of the workspace says what was found.
namespace comba::delta_rule {

/// Bytes for the verb of the problem.
std::int64_t workspace_bytes(const Implementation& implementation, const Problem& problem);

/// Bytes that its forward can leave for its backward.
std::int64_t saved_bytes(const Implementation& implementation, const Problem& problem);

void run(const Implementation& implementation, const Problem& problem, const DeltaRuleForward& args, Workspace all);
void run(const Implementation& implementation, const Problem& problem, const DeltaRuleBackward& args, Workspace all);
void run(const Implementation& implementation, const Problem& problem, const DeltaRuleDecode& args, Workspace all);

/// Whether a call leaves a status that check_borders() reads.
bool leaves_status(const Problem& problem);

}  // namespace comba::delta_rule
