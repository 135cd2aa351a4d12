#include "libtorch/delta_rule_kernels.h"

#include "base/message.h"
#include "comba/delta_rule.h"
#include "libtorch/call_scope.h"
#include "libtorch/delta_rule_call.h"
#include "libtorch/views.h"

namespace comba {
namespace {

using torch::jit::pop;
using torch::jit::push;
using torch::jit::Stack;

/// The operator wants stride 1 in the last dimension of its 4-dimensional arguments.
DeltaRuleTensors with_unit_strides(DeltaRuleTensors inputs) {
  for (auto input : {&DeltaRuleTensors::q, &DeltaRuleTensors::k, &DeltaRuleTensors::v, &DeltaRuleTensors::p,
                     &DeltaRuleTensors::initial_state, &DeltaRuleTensors::cu_seqlens}) {
    inputs.*input = with_unit_stride(inputs.*input);
  }
  return inputs;
}

at::Tensor empty_output(const DeltaRuleTensors& x) { return at::empty(x.v.sizes(), x.q.options()); }

at::Tensor empty_state(const DeltaRuleTensors& x) {
  const int64_t num_sequences = x.cu_seqlens.defined() ? std::max<int64_t>(x.cu_seqlens.numel() - 1, 0) : x.q.size(0);
  return at::empty({num_sequences, x.v.size(2), x.q.size(3), x.v.size(3)}, x.q.options().dtype(at::kFloat));
}

}  // namespace

DeltaRuleOutput delta_rule_forward_call(const DeltaRuleTensors& any_strides, const DeltaRuleOptions& options,
                                        bool output_final_state, bool borders_are_checked, at::Tensor* saved) {
  const DeltaRuleTensors inputs = with_unit_strides(any_strides);
  require_ranks(inputs);
  const c10::Device device = inputs.q.device();
  CallScope scope(device);
  DeltaRuleOutput result = {.o = empty_output(inputs),
                            .final_state = output_final_state ? empty_state(inputs) : at::Tensor()};
  DeltaRuleForward args{
      .options = options,
      .inputs = const_views(inputs, device),
      .o = mutable_view("o", result.o, device),
      .final_state = mutable_view("final_state", result.final_state, device),
      .execution = scope.execution(),
  };
  if (saved != nullptr) {
    *saved = at::empty({saved_bytes(args)}, inputs.q.options().dtype(at::kByte));
    args.saved = {saved->mutable_data_ptr(), saved->numel()};
  }
  const Workspace workspace = scope.workspace(workspace_bytes(args));
  delta_rule_forward(args, workspace);
  if (borders_are_checked) check_borders(args, workspace);
  return result;
}

std::vector<at::Tensor> delta_rule_backward_call(const at::Tensor& any_d_o, const at::Tensor& any_d_final_state,
                                                 const DeltaRuleTensors& any_strides, const DeltaRuleOptions& options,
                                                 const std::vector<bool>& mask, const at::Tensor& saved,
                                                 const std::array<at::Tensor, 3>& of_qkv) {
  const DeltaRuleTensors inputs = with_unit_strides(any_strides);
  const at::Tensor d_o = with_unit_stride(any_d_o), d_final_state = with_unit_stride(any_d_final_state);
  require_ranks(inputs);
  const c10::Device device = inputs.q.device();
  CallScope scope(device);

  const auto input_list = to_list(inputs);
  std::vector<at::Tensor> gradients(kNumGradients);
  for (std::size_t i = 0; i < kNumGradients; ++i) {
    if (!mask[i] || !input_list[i].defined()) continue;
    const bool is_given = i < of_qkv.size() && of_qkv[i].defined();
    gradients[i] = is_given ? of_qkv[i] : at::empty(input_list[i].sizes(), input_list[i].options());
  }
  const auto view = [&](const char* name, at::Tensor DeltaRuleTensors::*input) {
    const auto index = std::find(kInputs.begin(), kInputs.end(), input) - kInputs.begin();
    return mutable_view(name, gradients[index], device);
  };
  const DeltaRuleBackward args{
      .options = options,
      .inputs = const_views(inputs, device),
      .do_ = const_view("do", d_o, device),
      .d_final_state = const_view("d_final_state", d_final_state, device),
      .saved = saved.defined() ? Workspace{saved.mutable_data_ptr(), saved.numel()} : Workspace{},
      .dq = view("dq", &DeltaRuleTensors::q),
      .dk = view("dk", &DeltaRuleTensors::k),
      .dv = view("dv", &DeltaRuleTensors::v),
      .dp = view("dp", &DeltaRuleTensors::p),
      .db = view("db", &DeltaRuleTensors::b),
      .dd = view("dd", &DeltaRuleTensors::d),
      .dbeta = view("dbeta", &DeltaRuleTensors::beta),
      .dbeta_logit = view("dbeta_logit", &DeltaRuleTensors::beta_logit),
      .dg = view("dg", &DeltaRuleTensors::g),
      .da = view("da", &DeltaRuleTensors::a),
      .dA_log = view("dA_log", &DeltaRuleTensors::A_log),
      .ddt_bias = view("ddt_bias", &DeltaRuleTensors::dt_bias),
      .d_initial_state = view("d_initial_state", &DeltaRuleTensors::initial_state),
      .execution = scope.execution(),
  };
  delta_rule_backward(args, scope.workspace(workspace_bytes(args)));
  for (at::Tensor& gradient : gradients) {
    if (!gradient.defined()) gradient = at::empty({0}, inputs.q.options());
  }
  return gradients;
}

void delta_rule_kernel(Stack& stack) {
  pop(stack);  // save_states: nothing follows that could use them
  const bool borders_are_checked = pop(stack).toBool();
  const bool output_final_state = pop(stack).toBool();
  const DeltaRuleOptions options = pop_options(stack);
  const DeltaRuleTensors inputs = pop_inputs(stack);
  const DeltaRuleOutput result =
      delta_rule_forward_call(inputs, options, output_final_state, borders_are_checked, nullptr);
  push(stack, result.o, output_final_state ? result.final_state : at::empty({0}, inputs.q.options().dtype(at::kFloat)));
}

void delta_rule_backward_kernel(Stack& stack) {
  const auto mask = pop(stack).to<std::vector<bool>>();
  const DeltaRuleOptions options = pop_options(stack);
  const DeltaRuleTensors inputs = pop_inputs(stack);
  const auto d_final_state = pop(stack).toOptional<at::Tensor>().value_or(at::Tensor());
  const at::Tensor d_o = pop(stack).toTensor();
  push(stack, delta_rule_backward_call(d_o, d_final_state, inputs, options, mask, {}));
}

void delta_rule_decode_step_kernel(Stack& stack) {
  const DeltaRuleOptions options = pop_options(stack);
  const DecodeRows rows = pop_rows(stack);
  const at::Tensor state = pop(stack).toTensor();
  const DeltaRuleTensors inputs = with_unit_strides(pop_inputs(stack));
  require_ranks(inputs);
  const c10::Device device = inputs.q.device();
  CallScope scope(device);
  const at::Tensor o = empty_output(inputs);
  if (rows.state_indices.defined()) o.zero_();  // the operator leaves skipped rows as they are
  const DeltaRuleDecode args = {
      .options = options,
      .inputs = const_views(inputs, device),
      .state = mutable_view("state", state, device),
      .o = mutable_view("o", o, device),
      .state_indices = const_view("state_indices", rows.state_indices, device),
      .num_accepted = const_view("num_accepted", rows.num_accepted, device),
      .execution = scope.execution(),
  };
  delta_rule_decode_step(args, scope.workspace(workspace_bytes(args)));
  // Lets autograd see that a tensor it may have saved has changed.
  if (!state.is_inference()) state.unsafeGetTensorImpl()->bump_version();
  push(stack, o);
}

}  // namespace comba
