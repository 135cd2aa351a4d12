#pragma once

#include "libtorch/delta_rule.h"
#include "nn/layer_state.h"

namespace comba::nn {

/// delta_rule over the tokens of one call.  `state` [B, HV, K, V] f32, when given, is read and advanced in place.
at::Tensor delta_rule_with_state(DeltaRuleTensors inputs, const DeltaRuleOptions& options, const TokenSpan& span,
                                 const at::Tensor* state);

}  // namespace comba::nn
