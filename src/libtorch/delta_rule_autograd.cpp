#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/csrc/autograd/custom_function.h>

#include "libtorch/delta_rule_call.h"
#include "libtorch/delta_rule_kernels.h"

namespace comba {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using torch::jit::pop;
using torch::jit::push;
using torch::jit::Stack;

c10::OperatorHandle find_operator(const char* name) { return c10::Dispatcher::singleton().findSchemaOrThrow(name, ""); }

class DeltaRuleFunction : public torch::autograd::Function<DeltaRuleFunction> {
 public:
  /// inputs: one entry for each of kInputs, undefined where absent.
  static variable_list forward(AutogradContext* context, at::TensorList inputs, const DeltaRuleOptions& options,
                               bool output_final_state) {
    static const c10::OperatorHandle delta_rule = find_operator("comba::delta_rule");
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    context->set_materialize_grads(false);
    context->save_for_backward(inputs.vec());
    Stack saved_options;
    push_options(saved_options, options);
    context->saved_data["options"] = c10::ivalue::Tuple::create(saved_options);
    context->saved_data["output_final_state"] = output_final_state;

    Stack stack;
    push_inputs(stack, from_list(inputs));
    push_options(stack, options);
    push(stack, output_final_state);
    delta_rule.callBoxed(&stack);
    return {stack[0].toTensor(), stack[1].toTensor()};
  }

  static variable_list backward(AutogradContext* context, const variable_list& output_gradients) {
    static const c10::OperatorHandle delta_rule_backward = find_operator("comba::delta_rule_backward");
    const variable_list inputs = context->get_saved_variables();
    const DeltaRuleTensors x = from_list(inputs);
    at::Tensor d_o = output_gradients[0];
    if (!d_o.defined()) d_o = at::zeros_symint(x.v.sym_sizes(), x.q.options());
    const bool has_d_final_state = context->saved_data["output_final_state"].toBool() && output_gradients[1].defined();
    c10::List<bool> mask;
    for (std::size_t i = 0; i < kNumGradients; ++i) {
      mask.push_back(inputs[i].defined() && context->needs_input_grad(i));
    }

    Stack stack;
    push(stack, d_o, has_d_final_state ? c10::IValue(output_gradients[1]) : c10::IValue());
    push_inputs(stack, x);
    for (const c10::IValue& option : context->saved_data["options"].toTupleRef().elements()) push(stack, option);
    push(stack, mask);
    delta_rule_backward.callBoxed(&stack);

    const std::vector<at::Tensor> gradients = pop(stack).toTensorVector();
    // One entry for each argument of forward: the inputs, options and output_final_state.
    variable_list result(kNumInputs + 2);
    for (std::size_t i = 0; i < kNumGradients; ++i) {
      if (mask[i]) result[i] = gradients[i];
    }
    return result;
  }
};

}  // namespace

void delta_rule_autograd(Stack& stack) {
  const bool output_final_state = pop(stack).toBool();
  const DeltaRuleOptions options = pop_options(stack);
  const auto inputs = to_list(pop_inputs(stack));
  const variable_list outputs = DeltaRuleFunction::apply(at::TensorList(inputs), options, output_final_state);
  push(stack, outputs[0], outputs[1]);
}

}  // namespace comba
