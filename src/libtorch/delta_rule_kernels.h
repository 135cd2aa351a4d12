#pragma once

#include <ATen/ATen.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/stack.h>

#include <array>

#include "libtorch/delta_rule.h"

/// Kernels for LibTorch's dispatcher. They take their arguments from the stack and leave their results there, in the
/// order of the schemas in library.cpp.
namespace comba {

// On the device of q, by the library.
void delta_rule_kernel(torch::jit::Stack& stack);
void delta_rule_backward_kernel(torch::jit::Stack& stack);
void delta_rule_decode_step_kernel(torch::jit::Stack& stack);

// The first two as functions. `saved`, if given, becomes what the backward call would compute again; [bytes] uint8. A
// gradient that `mask` leaves out, or of an absent input, is a tensor of shape [0]. `of_qkv`: places for dq, dk and dv,
// of any strides whose last is 1; undefined: made there.
DeltaRuleOutput delta_rule_forward_call(const DeltaRuleTensors& inputs, const DeltaRuleOptions& options,
                                        bool output_final_state, bool check_borders, at::Tensor* saved);
std::vector<at::Tensor> delta_rule_backward_call(const at::Tensor& d_o, const at::Tensor& d_final_state,
                                                 const DeltaRuleTensors& inputs, const DeltaRuleOptions& options,
                                                 const std::vector<bool>& mask, const at::Tensor& saved,
                                                 const std::array<at::Tensor, 3>& of_qkv = {});

// Shapes only.
void delta_rule_meta(torch::jit::Stack& stack);
void delta_rule_backward_meta(torch::jit::Stack& stack);
void delta_rule_decode_step_meta(torch::jit::Stack& stack);

// delta_rule or delta_rule_decode_step with q, k, v and p in the dtype of torch.autocast.
void delta_rule_autocast(const c10::OperatorHandle& op, torch::jit::Stack* stack);

// delta_rule with a node in the autograd graph.
void delta_rule_autograd(torch::jit::Stack& stack);

// delta_rule_backward whose results throw when they are differentiated.
void delta_rule_backward_autograd(const c10::OperatorHandle& op, torch::jit::Stack* stack);

}  // namespace comba
