#include "libtorch/delta_rule_call.h"

#include "base/message.h"
#include "libtorch/views.h"

namespace comba {
namespace {

void push_optional(torch::jit::Stack& stack, const at::Tensor& tensor) {
  stack.emplace_back(tensor.defined() ? c10::IValue(tensor) : c10::IValue());
}

at::Tensor pop_optional(torch::jit::Stack& stack) {
  const c10::IValue value = torch::jit::pop(stack);
  return value.isNone() ? at::Tensor() : value.toTensor();
}

}  // namespace

std::array<at::Tensor, kNumInputs> to_list(const DeltaRuleTensors& inputs) {
  std::array<at::Tensor, kNumInputs> list;
  for (std::size_t i = 0; i < kNumInputs; ++i) list[i] = inputs.*kInputs[i];
  return list;
}

DeltaRuleTensors from_list(at::ArrayRef<at::Tensor> list) {
  DeltaRuleTensors inputs;
  for (std::size_t i = 0; i < kNumInputs; ++i) inputs.*kInputs[i] = list[i];
  return inputs;
}

void require_ranks(const DeltaRuleTensors& x) {
  require(x.q.dim() == 4 && x.v.dim() == 4, ErrorCode::invalid_argument,
          "[delta_rule] q must be [B, T, H, K] and v [B, T, HV, V]; got ", x.q.sym_sizes(), " and ", x.v.sym_sizes());
}

DeltaRuleInputs const_views(const DeltaRuleTensors& x, c10::Device device) {
  return {
      .q = const_view("q", x.q, device),
      .k = const_view("k", x.k, device),
      .v = const_view("v", x.v, device),
      .p = const_view("p", x.p, device),
      .b = const_view("b", x.b, device),
      .d = const_view("d", x.d, device),
      .beta = const_view("beta", x.beta, device),
      .beta_logit = const_view("beta_logit", x.beta_logit, device),
      .g = const_view("g", x.g, device),
      .a = const_view("a", x.a, device),
      .A_log = const_view("A_log", x.A_log, device),
      .dt_bias = const_view("dt_bias", x.dt_bias, device),
      .initial_state = const_view("initial_state", x.initial_state, device),
      .cu_seqlens = const_view("cu_seqlens", x.cu_seqlens, device),
  };
}

void push_inputs(torch::jit::Stack& stack, const DeltaRuleTensors& inputs) {
  for (const auto& tensor : to_list(inputs)) push_optional(stack, tensor);
}

DeltaRuleTensors pop_inputs(torch::jit::Stack& stack) {
  DeltaRuleTensors inputs;
  for (std::size_t i = kNumInputs; i-- > 0;) inputs.*kInputs[i] = pop_optional(stack);
  return inputs;
}

void push_rows(torch::jit::Stack& stack, const DecodeRows& rows) {
  push_optional(stack, rows.state_indices);
  push_optional(stack, rows.num_accepted);
}

DecodeRows pop_rows(torch::jit::Stack& stack) {
  DecodeRows rows;
  rows.num_accepted = pop_optional(stack);
  rows.state_indices = pop_optional(stack);
  return rows;
}

void push_options(torch::jit::Stack& stack, const DeltaRuleOptions& options) {
  stack.emplace_back(options.rule == Rule::comba ? "comba" : "gated_delta");
  stack.emplace_back(options.convention == Convention::paper ? "paper" : "fla");
  stack.emplace_back(options.l2norm);
  stack.emplace_back(static_cast<double>(options.l2norm_eps));
  stack.emplace_back(options.scale ? c10::IValue(static_cast<double>(*options.scale)) : c10::IValue());
  stack.emplace_back(static_cast<double>(options.beta_scale));
}

DeltaRuleOptions pop_options(torch::jit::Stack& stack) {
  DeltaRuleOptions options;
  options.beta_scale = static_cast<float>(torch::jit::pop(stack).toDouble());
  const auto scale = torch::jit::pop(stack).toOptional<double>();
  if (scale) options.scale = static_cast<float>(*scale);
  options.l2norm_eps = static_cast<float>(torch::jit::pop(stack).toDouble());
  options.l2norm = torch::jit::pop(stack).toBool();

  const std::string convention = torch::jit::pop(stack).toStringRef();
  require(convention == "paper" || convention == "fla", ErrorCode::invalid_argument,
          "[delta_rule] convention must be paper or fla; got ", convention);
  options.convention = convention == "paper" ? Convention::paper : Convention::fla;

  const std::string rule = torch::jit::pop(stack).toStringRef();
  require(rule == "comba" || rule == "gated_delta", ErrorCode::invalid_argument,
          "[delta_rule] rule must be comba or gated_delta; got ", rule);
  options.rule = rule == "comba" ? Rule::comba : Rule::gated_delta;
  return options;
}

}  // namespace comba
