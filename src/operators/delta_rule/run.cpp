#include "operators/delta_rule/run.h"

#include "operators/delta_rule/cuda/borders.h"

namespace comba::delta_rule {
namespace {

std::int64_t status_bytes(const Problem& x) { return leaves_status(x) ? cuda::kStatusBytes : 0; }

Workspace behind_status(const Problem& x, Workspace all) {
  const std::int64_t bytes = status_bytes(x);
  return bytes == 0 ? all : Workspace{static_cast<char*>(all.data) + bytes, all.bytes - bytes};
}

void check_borders(const Problem& x, std::initializer_list<View> results, Workspace all) {
  if (leaves_status(x)) cuda::queue_border_check(x, results, all.data);
}

}  // namespace

bool leaves_status(const Problem& x) { return x.execution.device == DeviceType::cuda && x.in.cu_seqlens.given(); }

std::int64_t workspace_bytes(const Implementation& implementation, const Problem& x) {
  switch (x.verb) {
    case Verb::forward:
      return status_bytes(x) + implementation.forward_workspace(x);
    case Verb::backward:
      return status_bytes(x) + implementation.backward_workspace(x);
    default:
      return implementation.decode_workspace(x);
  }
}

std::int64_t saved_bytes(const Implementation& implementation, const Problem& x) {
  return implementation.saved_bytes == nullptr ? 0 : implementation.saved_bytes(x);
}

void run(const Implementation& implementation, const Problem& x, const DeltaRuleForward& args, Workspace all) {
  implementation.forward(x, args, behind_status(x, all));
  check_borders(x, {args.o, args.final_state}, all);
}

void run(const Implementation& implementation, const Problem& x, const DeltaRuleBackward& args, Workspace all) {
  implementation.backward(x, args, behind_status(x, all));
  check_borders(x,
                {args.dq, args.dk, args.dv, args.dp, args.db, args.dd, args.dbeta, args.dbeta_logit, args.dg, args.da,
                 args.dA_log, args.ddt_bias, args.d_initial_state},
                all);
}

void run(const Implementation& implementation, const Problem& x, const DeltaRuleDecode& args, Workspace all) {
  implementation.decode_step(x, args, all);
}

}  // namespace comba::delta_rule
