#include "comba/delta_rule.h"

#include "base/environment.h"
#include "base/message.h"
#include "operators/delta_rule/implementation.h"

namespace comba {
namespace delta_rule {

const std::vector<Implementation>& implementations() {
  static const std::vector<Implementation> list = [] {
    std::vector<Implementation> all = cuda::implementations();
    for (const Implementation& implementation : cpu::chunk_implementations()) all.push_back(implementation);
    all.push_back(cpu::reference_implementation());
    return all;
  }();
  return list;
}

namespace {

const char* name_of(Verb verb) {
  switch (verb) {
    case Verb::forward:
      return "delta_rule_forward";
    case Verb::backward:
      return "delta_rule_backward";
    default:
      return "delta_rule_decode_step";
  }
}

std::string names_of_all() {
  std::string names;
  for (const Implementation& implementation : implementations()) {
    names += concat(names.empty() ? "" : ", ", implementation.name);
  }
  return names;
}

/// The forced implementation, or the first that supports the call.
const Implementation& choose(const Problem& problem) {
  const std::string forced = forced_implementation();
  const bool on_gpu = problem.execution.device == DeviceType::cuda;
  bool known = forced.empty();
  std::string reasons;
  for (const Implementation& implementation : implementations()) {
    const std::string name = implementation.name;
    if (!forced.empty() && forced != name) continue;
    known = true;
    const std::string refusal = implementation.refusal(problem);
    if (refusal.empty()) return implementation;
    // That code for the other device does not take this call is no news, unless it was asked for.
    if (forced.empty() && name.starts_with(on_gpu ? "cpu." : "cuda.")) continue;
    reasons += concat(reasons.empty() ? "" : "; ", name, " ", refusal);
  }
  require(known, ErrorCode::invalid_argument, "[delta_rule] COMBA_IMPL must be one of ", names_of_all(), "; got ",
          forced);
  throw Error(ErrorCode::unsupported,
              concat("[", name_of(problem.verb), "] no implementation supports this call on the ",
                     on_gpu ? "GPU: " : "CPU: ", reasons.empty() ? "this build has none for GPUs" : reasons));
}

void check_workspace(const char* where, const Workspace& workspace, std::int64_t needed) {
  require(workspace.bytes >= needed, ErrorCode::invalid_argument, "[", where, "] workspace must have ", needed,
          " bytes; got ", workspace.bytes);
  require(workspace.data || needed == 0, ErrorCode::invalid_argument, "[", where,
          "] workspace must be given; got a null pointer");
  require(reinterpret_cast<std::uintptr_t>(workspace.data) % 64 == 0, ErrorCode::invalid_argument, "[", where,
          "] workspace must be aligned to 64 bytes; got ", workspace.data);
}

}  // namespace
}  // namespace delta_rule

std::vector<DeltaRuleImplementation> delta_rule_implementations(const DeltaRuleForward& args) {
  const delta_rule::Problem problem = delta_rule::check(args);
  std::vector<DeltaRuleImplementation> list;
  for (const delta_rule::Implementation& implementation : delta_rule::implementations()) {
    list.push_back({implementation.name, implementation.refusal(problem)});
  }
  return list;
}

std::int64_t workspace_bytes(const DeltaRuleForward& args) {
  const delta_rule::Problem problem = delta_rule::check(args);
  return delta_rule::choose(problem).forward_workspace(problem);
}

std::int64_t workspace_bytes(const DeltaRuleBackward& args) {
  const delta_rule::Problem problem = delta_rule::check(args);
  return delta_rule::choose(problem).backward_workspace(problem);
}

std::int64_t workspace_bytes(const DeltaRuleDecode& args) {
  const delta_rule::Problem problem = delta_rule::check(args);
  return delta_rule::choose(problem).decode_workspace(problem);
}

void delta_rule_forward(const DeltaRuleForward& args, Workspace workspace) {
  const delta_rule::Problem problem = delta_rule::check(args);
  const delta_rule::Implementation& implementation = delta_rule::choose(problem);
  delta_rule::check_workspace("delta_rule_forward", workspace, implementation.forward_workspace(problem));
  implementation.forward(problem, args, workspace);
}

void delta_rule_backward(const DeltaRuleBackward& args, Workspace workspace) {
  const delta_rule::Problem problem = delta_rule::check(args);
  const delta_rule::Implementation& implementation = delta_rule::choose(problem);
  delta_rule::check_workspace("delta_rule_backward", workspace, implementation.backward_workspace(problem));
  implementation.backward(problem, args, workspace);
}

void delta_rule_decode_step(const DeltaRuleDecode& args, Workspace workspace) {
  const delta_rule::Problem problem = delta_rule::check(args);
  const delta_rule::Implementation& implementation = delta_rule::choose(problem);
  delta_rule::check_workspace("delta_rule_decode_step", workspace, implementation.decode_workspace(problem));
  implementation.decode_step(problem, args, workspace);
}

}  // namespace comba
