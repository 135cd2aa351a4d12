#include "nn/mixers/delta_rule_core.h"

#include <ATen/core/grad_mode.h>

namespace comba::nn {
namespace {

// Below this, going token by token costs less than a chunk of 64.
constexpr int64_t kMostTokensOneByOne = 16;

}  // namespace

at::Tensor delta_rule_with_state(DeltaRuleTensors inputs, const DeltaRuleOptions& options, const TokenSpan& span,
                                 const at::Tensor* state) {
  if (state == nullptr) {
    inputs.cu_seqlens = span.cu_seqlens;
    return delta_rule(inputs, options).o;
  }
  if (!at::GradMode::is_enabled() && inputs.q.size(1) <= kMostTokensOneByOne) {
    return delta_rule_decode_step(inputs, *state, options);
  }
  // Backward may still need the state as it was.
  inputs.initial_state = state->clone();
  const DeltaRuleOutput output = delta_rule(inputs, options, /*output_final_state=*/true);
  state->copy_(output.final_state.detach());
  return output.o;
}

}  // namespace comba::nn
