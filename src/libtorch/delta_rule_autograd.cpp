#include <ATen/TensorSubclassLikeUtils.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/autograd/functions/basic_ops.h>

#include <algorithm>
#include <array>
#include <vector>

#include "libtorch/columns.h"
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

/// The inputs of a call that are given, since LibTorch's Function takes no undefined tensor.
struct GivenInputs {
  std::vector<at::Tensor> tensors;
  std::vector<int64_t> slots;  // the place of each in kInputs

  explicit GivenInputs(const DeltaRuleTensors& inputs) {
    const auto list = to_list(inputs);
    for (std::size_t slot = 0; slot < kNumInputs; ++slot) {
      if (!list[slot].defined()) continue;
      tensors.push_back(list[slot]);
      slots.push_back(static_cast<int64_t>(slot));
    }
  }
};

DeltaRuleTensors restore(at::TensorList tensors, at::IntArrayRef slots) {
  std::array<at::Tensor, kNumInputs> list;
  for (std::size_t i = 0; i < slots.size(); ++i) list[slots[i]] = tensors[i];
  return from_list(list);
}

/// Places for dq, dk and dv as columns of one tensor, where q, k and v are: the layer below has one product for all.
/// Undefined where they are not, or have no memory, as while torch.compile traces the call.
std::array<at::Tensor, 3> joined_gradients(const DeltaRuleTensors& x, const std::vector<bool>& mask) {
  if (!mask[0] || !mask[1] || !mask[2] || at::GradMode::is_enabled() || at::areAnyTensorSubclassLike({x.q, x.k, x.v})) {
    return {};
  }
  if (x.q.is_meta() || x.q.numel() == 0) return {};
  for (const at::Tensor& heads : {x.q, x.k, x.v}) {
    if (heads.stride(3) != 1 || heads.stride(2) != heads.size(3)) return {};
  }
  // [B, T, heads, dim] -> [B, T, heads dim], views.
  const auto by_token = [](const at::Tensor& heads) { return heads.flatten(2); };
  const at::Tensor joined = joined_columns({by_token(x.q), by_token(x.k), by_token(x.v)});
  if (!joined.defined()) return {};
  const auto width = [](const at::Tensor& heads) { return heads.size(2) * heads.size(3); };
  const std::vector<at::Tensor> columns =
      cut_columns(at::empty(joined.sizes(), joined.options()), {width(x.q), width(x.k), width(x.v)});
  return {columns[0].view(x.q.sizes()), columns[1].view(x.k.sizes()), columns[2].view(x.v.sizes())};
}

class DeltaRuleFunction : public torch::autograd::Function<DeltaRuleFunction> {
 public:
  static variable_list forward(AutogradContext* context, at::TensorList given, const std::vector<int64_t>& slots,
                               const DeltaRuleOptions& options, bool output_final_state, bool check_borders) {
    static const c10::OperatorHandle delta_rule = find_operator("comba::delta_rule");
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    context->set_materialize_grads(false);
    context->save_for_backward(given.vec());
    context->saved_data["slots"] = slots;
    Stack saved_options;
    push_options(saved_options, options);
    context->saved_data["options"] = c10::ivalue::Tuple::create(saved_options);
    context->saved_data["output_final_state"] = output_final_state;

    Stack stack;
    push_inputs(stack, restore(given, slots));
    push_options(stack, options);
    push(stack, output_final_state, check_borders);
    delta_rule.callBoxed(&stack);
    return {stack[0].toTensor(), stack[1].toTensor()};
  }

  static variable_list backward(AutogradContext* context, const variable_list& output_gradients) {
    static const c10::OperatorHandle delta_rule_backward = find_operator("comba::delta_rule_backward");
    const variable_list given = context->get_saved_variables();
    const std::vector<int64_t> slots = context->saved_data["slots"].toIntVector();
    const DeltaRuleTensors x = restore(given, slots);
    at::Tensor d_o = output_gradients[0];
    if (!d_o.defined()) d_o = at::zeros_symint(x.v.sym_sizes(), x.q.options());
    const bool has_d_final_state = context->saved_data["output_final_state"].toBool() && output_gradients[1].defined();
    std::vector<bool> mask(kNumInputs, false);
    for (std::size_t i = 0; i < slots.size(); ++i) mask[slots[i]] = context->needs_input_grad(i);
    mask.resize(kNumGradients);

    Stack stack;
    push(stack, d_o, has_d_final_state ? c10::IValue(output_gradients[1]) : c10::IValue());
    push_inputs(stack, x);
    for (const c10::IValue& option : context->saved_data["options"].toTupleRef().elements()) push(stack, option);
    push(stack, mask);
    if (const std::array<at::Tensor, 3> of_qkv = joined_gradients(x, mask); of_qkv[0].defined()) {
      delta_rule_backward_into(stack, of_qkv);
    } else {
      delta_rule_backward.callBoxed(&stack);
    }

    const std::vector<at::Tensor> gradients = pop(stack).toTensorVector();
    // One entry for each argument of forward: the given inputs, then four that have no gradient.
    variable_list result(slots.size() + 4);
    for (std::size_t i = 0; i < slots.size(); ++i) {
      const auto slot = static_cast<std::size_t>(slots[i]);
      if (slot < kNumGradients && mask[slot]) result[i] = gradients[slot];
    }
    return result;
  }
};

}  // namespace

void delta_rule_autograd(Stack& stack) {
  const bool check_borders = pop(stack).toBool();
  const bool output_final_state = pop(stack).toBool();
  const DeltaRuleOptions options = pop_options(stack);
  const GivenInputs given(pop_inputs(stack));
  const variable_list outputs =
      DeltaRuleFunction::apply(at::TensorList(given.tensors), given.slots, options, output_final_state, check_borders);
  push(stack, outputs[0], outputs[1]);
}

void delta_rule_backward_autograd(const c10::OperatorHandle& op, Stack* stack) {
  const auto requires_grad = [](const c10::IValue& x) { return x.isTensor() && x.toTensor().requires_grad(); };
  const auto arguments = torch::jit::last(*stack, op.schema().arguments().size());
  const bool recorded = at::GradMode::is_enabled() && std::any_of(arguments.begin(), arguments.end(), requires_grad);
  {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    op.callBoxed(stack);
  }
  if (!recorded) return;
  std::vector<at::Tensor> gradients = pop(*stack).toTensorVector();
  for (at::Tensor& gradient : gradients) gradient.set_requires_grad(true);  // else no node is put on them
  const auto refusal = std::make_shared<torch::autograd::DelayedError>(
      "[delta_rule] a second derivative is not implemented: its gradients cannot be differentiated",
      static_cast<int64_t>(gradients.size()));
  push(*stack, (*refusal)(std::move(gradients)));
}

}  // namespace comba
