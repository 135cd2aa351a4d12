#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/library.h>

#include "libtorch/delta_rule.h"
#include "libtorch/delta_rule_call.h"
#include "libtorch/delta_rule_kernels.h"
#include "libtorch/error_translation.h"

// Registration and the C++ functions that call it share this file, so that whoever links one has the other.
namespace comba {
namespace {

using torch::jit::pop;
using torch::jit::push;
using torch::jit::Stack;

// Shapes: include/comba/delta_rule.h. A final_state or a gradient that was not asked for is a tensor of shape [0].
// grad_mask and the gradients follow the order of the inputs; cu_seqlens has none.
const std::string kInputSchema =
    "Tensor q, Tensor k, Tensor v, Tensor? p=None, Tensor? b=None, Tensor? d=None, Tensor? beta=None, "
    "Tensor? beta_logit=None, Tensor? g=None, Tensor? a=None, Tensor? A_log=None, Tensor? dt_bias=None, "
    "Tensor? initial_state=None, Tensor? cu_seqlens=None";
const std::string kOptionSchema =
    "str rule='comba', str convention='paper', bool l2norm=True, float l2norm_eps=1e-06, float? scale=None, "
    "float beta_scale=1.0";

template <void (*kKernel)(Stack&)>
void run(const c10::OperatorHandle&, Stack* stack) {
  translated([&] { kKernel(*stack); });
}

template <void (*kKernel)(Stack&)>
torch::CppFunction boxed() {
  return torch::CppFunction::makeFromBoxedFunction<&run<kKernel>>();
}

TORCH_LIBRARY(comba, library) {
  const std::string forward =
      "delta_rule(" + kInputSchema + ", *, " + kOptionSchema +
      ", bool output_final_state=False, bool check_borders=False, bool save_states=True) -> (Tensor o, Tensor "
      "final_state)";
  const std::string backward = "delta_rule_backward(Tensor do, Tensor? d_final_state, " + kInputSchema + ", *, " +
                               kOptionSchema + ", bool[13] grad_mask) -> Tensor[]";
  const std::string decode_step = "delta_rule_decode_step(" + kInputSchema +
                                  ", *, Tensor(a!) state, Tensor? state_indices=None, Tensor? num_accepted=None, " +
                                  kOptionSchema + ") -> Tensor";
  for (const std::string& schema : {forward, backward, decode_step}) library.def(schema.c_str());
}

void implement_by_the_library(torch::Library& library) {
  library.impl("delta_rule", boxed<delta_rule_kernel>());
  library.impl("delta_rule_backward", boxed<delta_rule_backward_kernel>());
  library.impl("delta_rule_decode_step", boxed<delta_rule_decode_step_kernel>());
}

TORCH_LIBRARY_IMPL(comba, CPU, library) { implement_by_the_library(library); }

// In every build and every program: it costs nothing (cuda_stream.cpp says why), and a build without CUDA says so.
TORCH_LIBRARY_IMPL(comba, CUDA, library) { implement_by_the_library(library); }

TORCH_LIBRARY_IMPL(comba, Meta, library) {
  library.impl("delta_rule", boxed<delta_rule_meta>());
  library.impl("delta_rule_backward", boxed<delta_rule_backward_meta>());
  library.impl("delta_rule_decode_step", boxed<delta_rule_decode_step_meta>());
}

void implement_autocast(torch::Library& library) {
  for (const char* name : {"delta_rule", "delta_rule_decode_step"}) {
    library.impl(name, torch::CppFunction::makeFromBoxedFunction<&delta_rule_autocast>());
  }
}

TORCH_LIBRARY_IMPL(comba, AutocastCPU, library) { implement_autocast(library); }
TORCH_LIBRARY_IMPL(comba, AutocastCUDA, library) { implement_autocast(library); }

// A second derivative, or one through decode_step, ends in an error that says so.
TORCH_LIBRARY_IMPL(comba, Autograd, library) {
  library.impl("delta_rule", boxed<delta_rule_autograd>());
  library.impl("delta_rule_backward", torch::CppFunction::makeFromBoxedFunction<&delta_rule_backward_autograd>());
  library.impl("delta_rule_decode_step", torch::autograd::autogradNotImplementedFallback());
}

c10::OperatorHandle find_operator(const char* name) { return c10::Dispatcher::singleton().findSchemaOrThrow(name, ""); }

}  // namespace

DeltaRuleOutput delta_rule(const DeltaRuleTensors& inputs, const DeltaRuleOptions& options, bool output_final_state,
                           bool check_borders, bool save_states) {
  static const c10::OperatorHandle op = find_operator("comba::delta_rule");
  Stack stack;
  push_inputs(stack, inputs);
  push_options(stack, options);
  push(stack, output_final_state, check_borders, save_states);
  op.callBoxed(&stack);
  return {.o = stack[0].toTensor(), .final_state = output_final_state ? stack[1].toTensor() : at::Tensor()};
}

at::Tensor delta_rule_decode_step(const DeltaRuleTensors& inputs, const at::Tensor& state,
                                  const DeltaRuleOptions& options, const DecodeRows& rows) {
  static const c10::OperatorHandle op = find_operator("comba::delta_rule_decode_step");
  Stack stack;
  push_inputs(stack, inputs);
  push(stack, state);
  push_rows(stack, rows);
  push_options(stack, options);
  op.callBoxed(&stack);
  return pop(stack).toTensor();
}

}  // namespace comba
