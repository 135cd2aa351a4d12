#include "comba/delta_rule.h"

#include "base/environment.h"
#include "base/message.h"
#include "operators/delta_rule/cuda/borders.h"
#include "operators/delta_rule/run.h"

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

void check_memory(const char* what, const Problem& problem, const Workspace& memory, std::int64_t needed) {
  const char* where = name_of(problem.verb);
  require(memory.bytes >= needed, ErrorCode::invalid_argument, "[", where, "] ", what, " must have ", needed,
          " bytes; got ", memory.bytes);
  require(memory.data || needed == 0, ErrorCode::invalid_argument, "[", where, "] ", what,
          " must be given; got a null pointer");
  require(reinterpret_cast<std::uintptr_t>(memory.data) % 64 == 0, ErrorCode::invalid_argument, "[", where, "] ", what,
          " must be aligned to 64 bytes; got ", memory.data);
}

template <class Args>
std::int64_t workspace_of(const Args& args) {
  const Problem problem = check(args);
  return workspace_bytes(choose(problem), problem);
}

template <class Args>
void call(const Args& args, Workspace workspace) {
  const Problem problem = check(args);
  const Implementation& implementation = choose(problem);
  check_memory("workspace", problem, workspace, workspace_bytes(implementation, problem));
  if constexpr (requires { args.saved; }) {
    const std::int64_t saved = saved_bytes(implementation, problem);
    if (problem.saved_bytes > 0 && saved > 0) check_memory("saved", problem, args.saved, saved);
  }
  run(implementation, problem, args, workspace);
}

template <class Args>
void check_status(const Args& args, Workspace workspace) {
  const Problem problem = check(args);
  if (!leaves_status(problem)) return;
  check_memory("workspace", problem, workspace, cuda::kStatusBytes);
  const BrokenBorder found = cuda::read_border_check(problem.execution, workspace.data);
  require(found.rule == BorderRule::holds, ErrorCode::invalid_argument, "[", name_of(problem.verb), "] ",
          describe(found, problem.T), "; its results are NaN");
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

std::int64_t workspace_bytes(const DeltaRuleForward& args) { return delta_rule::workspace_of(args); }
std::int64_t workspace_bytes(const DeltaRuleBackward& args) { return delta_rule::workspace_of(args); }
std::int64_t workspace_bytes(const DeltaRuleDecode& args) { return delta_rule::workspace_of(args); }

std::int64_t saved_bytes(const DeltaRuleForward& args) {
  const delta_rule::Problem problem = delta_rule::check(args);
  return delta_rule::saved_bytes(delta_rule::choose(problem), problem);
}

void delta_rule_forward(const DeltaRuleForward& args, Workspace workspace) { delta_rule::call(args, workspace); }
void delta_rule_backward(const DeltaRuleBackward& args, Workspace workspace) { delta_rule::call(args, workspace); }
void delta_rule_decode_step(const DeltaRuleDecode& args, Workspace workspace) { delta_rule::call(args, workspace); }

void check_borders(const DeltaRuleForward& args, Workspace workspace) { delta_rule::check_status(args, workspace); }
void check_borders(const DeltaRuleBackward& args, Workspace workspace) { delta_rule::check_status(args, workspace); }

}  // namespace comba
