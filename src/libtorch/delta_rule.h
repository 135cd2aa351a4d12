#pragma once

#include <ATen/ATen.h>

#include "comba/delta_rule.h"

/// The operator on tensors, with autograd. Definition and shapes: include/comba/delta_rule.h.
namespace comba {

/// Inputs by the names of DeltaRuleInputs; an undefined tensor is absent. Any strides. All are on the CPU, or all on
/// one GPU: then a call is queued on that GPU's current stream, and there is no backward yet.
struct DeltaRuleTensors {
  at::Tensor q;              ///< [B, T, H, K]
  at::Tensor k;              ///< [B, T, H, K]
  at::Tensor v;              ///< [B, T, HV, V]
  at::Tensor p;              ///< [B, T, H or HV, K]  excludes b
  at::Tensor b;              ///< [H] f32
  at::Tensor d;              ///< [H] f32
  at::Tensor beta;           ///< [B, T, HV], or
  at::Tensor beta_logit;     ///< [B, T, HV]
  at::Tensor g;              ///< [B, T, HV], or
  at::Tensor a;              ///< [B, T, HV] with
  at::Tensor A_log;          ///< [HV] f32
  at::Tensor dt_bias;        ///< [HV] f32
  at::Tensor initial_state;  ///< [N, HV, K, V] f32
  at::Tensor cu_seqlens;     ///< [N + 1] i32 or i64
};

struct DeltaRuleOutput {
  at::Tensor o;            ///< [B, T, HV, V]       dtype of q
  at::Tensor final_state;  ///< [N, HV, K, V] f32   undefined unless asked for
};

/// All T tokens at once, differentiable in every floating input (once: a second derivative is refused).
/// Throws Error when an argument breaks a rule.
DeltaRuleOutput delta_rule(const DeltaRuleTensors& inputs, const DeltaRuleOptions& options = {},
                           bool output_final_state = false);

/// T new tokens, one by one, with `state` [B, HV, K, V] f32 (contiguous) advanced in place; returns o [B, T, HV, V].
/// Without autograd. `inputs.initial_state` and `inputs.cu_seqlens` must be absent.
at::Tensor delta_rule_decode_step(const DeltaRuleTensors& inputs, const at::Tensor& state,
                                  const DeltaRuleOptions& options = {});

}  // namespace comba
