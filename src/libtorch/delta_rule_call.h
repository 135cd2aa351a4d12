#pragma once

#include <ATen/core/stack.h>

#include <array>

#include "libtorch/delta_rule.h"

/// How the operator's many arguments travel through LibTorch's dispatcher: as the stack of an operator call.
namespace comba {

/// The tensor arguments, in the order of the schema.
inline constexpr std::array kInputs = {
    &DeltaRuleTensors::q,
    &DeltaRuleTensors::k,
    &DeltaRuleTensors::v,
    &DeltaRuleTensors::p,
    &DeltaRuleTensors::b,
    &DeltaRuleTensors::d,
    &DeltaRuleTensors::beta,
    &DeltaRuleTensors::beta_logit,
    &DeltaRuleTensors::g,
    &DeltaRuleTensors::a,
    &DeltaRuleTensors::A_log,
    &DeltaRuleTensors::dt_bias,
    &DeltaRuleTensors::initial_state,
    &DeltaRuleTensors::cu_seqlens,
};
inline constexpr std::size_t kNumInputs = kInputs.size();
/// All but cu_seqlens have a gradient.
inline constexpr std::size_t kNumGradients = kNumInputs - 1;

/// The inputs as a list, undefined where absent.
std::array<at::Tensor, kNumInputs> to_list(const DeltaRuleTensors& inputs);
DeltaRuleTensors from_list(at::ArrayRef<at::Tensor> list);

/// Throws Error unless q and v have 4 dimensions each: the results are made from these, before the operator checks its
/// arguments.
void require_ranks(const DeltaRuleTensors& inputs);

/// Throws Error for one that is not on `device`.
DeltaRuleInputs const_views(const DeltaRuleTensors& inputs, c10::Device device);

void push_inputs(torch::jit::Stack& stack, const DeltaRuleTensors& inputs);
DeltaRuleTensors pop_inputs(torch::jit::Stack& stack);

/// state_indices and num_accepted.
void push_rows(torch::jit::Stack& stack, const DecodeRows& rows);
DecodeRows pop_rows(torch::jit::Stack& stack);

/// rule, convention, l2norm, l2norm_eps, scale and beta_scale. Popping throws Error for an unknown rule or convention.
void push_options(torch::jit::Stack& stack, const DeltaRuleOptions& options);
DeltaRuleOptions pop_options(torch::jit::Stack& stack);

}  // namespace comba
