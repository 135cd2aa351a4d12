#pragma once

#include <ATen/core/stack.h>

/// Kernels for LibTorch's dispatcher. They take their arguments from the stack and leave their results there, in the
/// order of the schemas in library.cpp.
namespace comba {

// On the device of q, by the library.
void delta_rule_kernel(torch::jit::Stack& stack);
void delta_rule_backward_kernel(torch::jit::Stack& stack);
void delta_rule_decode_step_kernel(torch::jit::Stack& stack);

// Shapes only.
void delta_rule_meta(torch::jit::Stack& stack);
void delta_rule_backward_meta(torch::jit::Stack& stack);
void delta_rule_decode_step_meta(torch::jit::Stack& stack);

// delta_rule with a node in the autograd graph.
void delta_rule_autograd(torch::jit::Stack& stack);

}  // namespace comba
