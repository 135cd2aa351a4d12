#include <ATen/TensorSubclassLikeUtils.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/record_function.h>
#include <c10/core/impl/TorchDispatchModeTLS.h>
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

/// Whether the kernel of the GPU takes the tensors as they are: nothing traces, batches or wraps the call.
bool goes_to_gpu_as_is(at::TensorList tensors) {
  static constexpr c10::DispatchKeySet kAround =
      c10::autograd_dispatch_keyset_with_ADInplaceOrView | c10::autocast_dispatch_keyset;
  return !c10::impl::dispatch_mode_enabled() && std::all_of(tensors.begin(), tensors.end(), [](const at::Tensor& x) {
    return (x.key_set() - kAround).highestPriorityTypeId() == c10::DispatchKey::CUDA;
  });
}

/// The call through the dispatcher, which whoever traces it sees.
DeltaRuleOutput dispatch_forward(const DeltaRuleTensors& inputs, const DeltaRuleOptions& options,
                                 bool output_final_state, bool check_borders) {
  static const c10::OperatorHandle op = find_operator("comba::delta_rule");
  Stack stack;
  push_inputs(stack, inputs);
  push_options(stack, options);
  push(stack, output_final_state, check_borders, /*save_states=*/false);
  op.callBoxed(&stack);
  return {.o = stack[0].toTensor(), .final_state = stack[1].toTensor()};
}

std::vector<at::Tensor> dispatch_backward(const at::Tensor& d_o, const at::Tensor& d_final_state,
                                          const DeltaRuleTensors& inputs, const DeltaRuleOptions& options,
                                          const std::vector<bool>& mask) {
  static const c10::OperatorHandle op = find_operator("comba::delta_rule_backward");
  Stack stack;
  push(stack, d_o, d_final_state.defined() ? c10::IValue(d_final_state) : c10::IValue());
  push_inputs(stack, inputs);
  push_options(stack, options);
  push(stack, mask);
  op.callBoxed(&stack);
  return pop(stack).toTensorVector();
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
                               const DeltaRuleOptions& options, bool output_final_state, bool check_borders,
                               bool save_states) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    context->set_materialize_grads(false);
    context->saved_data["slots"] = slots;
    Stack saved_options;
    push_options(saved_options, options);
    context->saved_data["options"] = c10::ivalue::Tuple::create(saved_options);
    context->saved_data["output_final_state"] = output_final_state;

    const DeltaRuleTensors inputs = restore(given, slots);
    variable_list kept = given.vec();
    DeltaRuleOutput result;
    if (goes_to_gpu_as_is(given)) {
      RECORD_FUNCTION("comba::delta_rule", c10::ArrayRef<const c10::IValue>());
      at::Tensor states;
      result =
          delta_rule_forward_call(inputs, options, output_final_state, check_borders, save_states ? &states : nullptr);
      if (save_states) kept.push_back(states);
      if (!output_final_state) result.final_state = at::empty({0}, inputs.q.options().dtype(at::kFloat));
    } else {
      result = dispatch_forward(inputs, options, output_final_state, check_borders);
    }
    context->save_for_backward(std::move(kept));
    return {result.o, result.final_state};
  }

  static variable_list backward(AutogradContext* context, const variable_list& output_gradients) {
    const variable_list kept = context->get_saved_variables();
    const std::vector<int64_t> slots = context->saved_data["slots"].toIntVector();
    const DeltaRuleTensors x = restore(kept, slots);
    Stack saved_options = context->saved_data["options"].toTupleRef().elements().vec();
    const DeltaRuleOptions options = pop_options(saved_options);
    at::Tensor d_o = output_gradients[0];
    if (!d_o.defined()) d_o = at::zeros_symint(x.v.sym_sizes(), x.q.options());
    const bool has_d_final_state = context->saved_data["output_final_state"].toBool() && output_gradients[1].defined();
    const at::Tensor d_final_state = has_d_final_state ? output_gradients[1] : at::Tensor();
    std::vector<bool> mask(kNumInputs, false);
    for (std::size_t i = 0; i < slots.size(); ++i) mask[slots[i]] = context->needs_input_grad(i);
    mask.resize(kNumGradients);

    const std::array<at::Tensor, 3> of_qkv = joined_gradients(x, mask);
    const bool has_states =
        kept.size() > slots.size() && !at::GradMode::is_enabled() && goes_to_gpu_as_is(kept) && goes_to_gpu_as_is(d_o);
    std::vector<at::Tensor> gradients;
    if (has_states || of_qkv[0].defined()) {
      RECORD_FUNCTION("comba::delta_rule_backward", c10::ArrayRef<const c10::IValue>());
      const at::Tensor states = has_states ? kept.back() : at::Tensor();
      gradients = delta_rule_backward_call(d_o, d_final_state, x, options, mask, states, of_qkv);
    } else {
      gradients = dispatch_backward(d_o, d_final_state, x, options, mask);
    }
    // One entry for each argument of forward: the given inputs, then five that have no gradient.
    variable_list result(slots.size() + 5);
    for (std::size_t i = 0; i < slots.size(); ++i) {
      const auto slot = static_cast<std::size_t>(slots[i]);
      if (slot < kNumGradients && mask[slot]) result[i] = gradients[slot];
    }
    return result;
  }
};

}  // namespace

void delta_rule_autograd(Stack& stack) {
  const bool save_states = pop(stack).toBool();
  const bool check_borders = pop(stack).toBool();
  const bool output_final_state = pop(stack).toBool();
  const DeltaRuleOptions options = pop_options(stack);
  const GivenInputs given(pop_inputs(stack));
  const bool is_recorded =
      at::GradMode::is_enabled() &&
      std::ranges::any_of(given.tensors, [](const at::Tensor& tensor) { return tensor.requires_grad(); });
  const variable_list outputs = DeltaRuleFunction::apply(at::TensorList(given.tensors), given.slots, options,
                                                         output_final_state, check_borders, save_states && is_recorded);
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
