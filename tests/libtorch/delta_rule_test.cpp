#include "libtorch/delta_rule.h"

#include <gmock/gmock.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/types.h>
#include <torch/utils.h>

#include "comba/error.h"
#include "libtorch/columns.h"
#include "libtorch/delta_rule_call.h"
#include "libtorch/delta_rule_kernels.h"
#include "support/delta_rule_recurrence.h"
#include "support/tensor_compare.h"

namespace comba {
namespace {

using test::close;
using testing::HasSubstr;
using testing::Property;
using testing::ThrowsMessage;

constexpr int64_t B = 2, T = 70, H = 2, HV = 4, K = 12, V = 8;

/// Inputs of every kind that go together: scalar b and d, logits and fused gates, an initial state.
DeltaRuleTensors random_inputs() {
  torch::manual_seed(1);
  return {
      .q = at::randn({B, T, H, K}),
      .k = at::randn({B, T, H, K}),
      .v = at::randn({B, T, HV, V}),
      .p = {},
      .b = at::rand({H}),
      .d = at::randn({H}),
      .beta = {},
      .beta_logit = at::randn({B, T, HV}),
      .g = {},
      .a = at::randn({B, T, HV}) - 3,
      .A_log = at::randn({HV}),
      .dt_bias = at::randn({HV}),
      .initial_state = at::randn({B, HV, K, V}),
      .cu_seqlens = {},
  };
}

const std::vector<std::pair<std::string, at::Tensor DeltaRuleTensors::*>> kDifferentiable = {
    {"q", &DeltaRuleTensors::q},
    {"k", &DeltaRuleTensors::k},
    {"v", &DeltaRuleTensors::v},
    {"p", &DeltaRuleTensors::p},
    {"b", &DeltaRuleTensors::b},
    {"d", &DeltaRuleTensors::d},
    {"beta", &DeltaRuleTensors::beta},
    {"beta_logit", &DeltaRuleTensors::beta_logit},
    {"g", &DeltaRuleTensors::g},
    {"a", &DeltaRuleTensors::a},
    {"A_log", &DeltaRuleTensors::A_log},
    {"dt_bias", &DeltaRuleTensors::dt_bias},
    {"initial_state", &DeltaRuleTensors::initial_state},
};

DeltaRuleTensors as_leaves(const DeltaRuleTensors& inputs, at::ScalarType dtype) {
  DeltaRuleTensors leaves = inputs;
  for (const auto& [name, input] : kDifferentiable) {
    if ((inputs.*input).defined()) leaves.*input = (inputs.*input).detach().to(dtype).clone().requires_grad_(true);
  }
  return leaves;
}

/// Outputs and all gradients against autograd through the recurrence in double.
void expect_agreement(const DeltaRuleTensors& inputs, const DeltaRuleOptions& options) {
  const DeltaRuleTensors x = as_leaves(inputs, at::kFloat);
  const DeltaRuleTensors reference = as_leaves(inputs, at::kDouble);
  const DeltaRuleOutput output = delta_rule(x, options, /*output_final_state=*/true);
  const DeltaRuleOutput expected = test::delta_rule_recurrence(reference, options);
  EXPECT_TRUE(close(output.o, expected.o, 1e-5, "o"));
  EXPECT_TRUE(close(output.final_state, expected.final_state, 1e-5, "final_state"));

  const at::Tensor d_o = at::randn_like(output.o), d_final_state = at::randn_like(output.final_state);
  torch::autograd::backward({output.o, output.final_state}, {d_o, d_final_state});
  torch::autograd::backward({expected.o, expected.final_state}, {d_o.to(at::kDouble), d_final_state.to(at::kDouble)});
  for (const auto& [name, input] : kDifferentiable) {
    if (!(x.*input).defined()) continue;
    const bool of_decay = name == "g" || name == "a" || name == "A_log" || name == "dt_bias";
    EXPECT_TRUE(close((x.*input).grad(), (reference.*input).grad(), of_decay ? 1e-3 : 1e-4, "d" + name));
  }
}

TEST(DeltaRule, GradientsAgreeWithTheRecurrence) {
  for (Rule rule : {Rule::comba, Rule::gated_delta}) {
    for (Convention convention : {Convention::paper, Convention::fla}) {
      SCOPED_TRACE(testing::Message() << "rule " << static_cast<int>(rule) << " convention "
                                      << static_cast<int>(convention));
      expect_agreement(random_inputs(), {.rule = rule, .convention = convention});
    }
  }
}

TEST(DeltaRule, GradientsOfWholeFeedbackAndPlainGatesAgreeWithTheRecurrence) {
  DeltaRuleTensors inputs = random_inputs();
  inputs.b = inputs.beta_logit = inputs.a = inputs.A_log = inputs.dt_bias = at::Tensor();
  inputs.p = at::randn({B, T, H, K});
  inputs.beta = at::rand({B, T, HV});
  inputs.g = -at::rand({B, T, HV});
  expect_agreement(inputs, {.convention = Convention::fla, .scale = 0.5f});
}

TEST(DeltaRule, TakesAnyStrides) {
  DeltaRuleTensors inputs = random_inputs();
  inputs.q = at::randn({B, K, H, T}).transpose(1, 3);
  inputs.v = at::randn({V, HV, T, B}).permute({3, 2, 1, 0});
  inputs.initial_state = at::randn({B, HV, V, K}).transpose(2, 3);
  DeltaRuleTensors dense = inputs;
  for (auto input : {&DeltaRuleTensors::q, &DeltaRuleTensors::v, &DeltaRuleTensors::initial_state}) {
    dense.*input = (inputs.*input).contiguous();
  }
  EXPECT_TRUE(at::equal(delta_rule(inputs).o, delta_rule(dense).o));
}

TEST(DeltaRule, ASumsGradientHasStrideZero) {
  const DeltaRuleTensors x = as_leaves(random_inputs(), at::kFloat), y = as_leaves(random_inputs(), at::kFloat);
  delta_rule(x).o.sum().backward();
  const at::Tensor o = delta_rule(y).o;
  o.backward(at::ones_like(o));
  EXPECT_TRUE(at::equal(x.k.grad(), y.k.grad()));
}

TEST(DeltaRule, GivesGradientsOnlyToWhoAsks) {
  DeltaRuleTensors inputs = random_inputs();
  inputs.k.requires_grad_(true);
  delta_rule(inputs).o.sum().backward();
  EXPECT_TRUE(inputs.k.grad().defined());
  EXPECT_FALSE(inputs.q.grad().defined());
  EXPECT_FALSE(inputs.A_log.grad().defined());
}

TEST(DeltaRule, TheFinalStateAloneHasGradients) {
  const DeltaRuleTensors x = as_leaves(random_inputs(), at::kFloat);
  delta_rule(x, {}, /*output_final_state=*/true).final_state.sum().backward();
  EXPECT_GT(x.v.grad().abs().sum().item<double>(), 0);
  EXPECT_EQ(x.q.grad().abs().sum().item<double>(), 0);
}

TEST(DeltaRule, NoGradMeansNoGraph) {
  const DeltaRuleTensors x = as_leaves(random_inputs(), at::kFloat);
  const torch::NoGradGuard no_grad;
  EXPECT_FALSE(delta_rule(x).o.requires_grad());
}

TEST(DeltaRule, RefusesASecondDerivative) {
  const DeltaRuleTensors x = as_leaves(random_inputs(), at::kFloat);
  const auto gradient = torch::autograd::grad({delta_rule(x).o.square().sum()}, {x.k}, /*grad_outputs=*/{},
                                              /*retain_graph=*/true, /*create_graph=*/true)[0];
  EXPECT_THAT([&] { gradient.sum().backward(); },
              ThrowsMessage<std::exception>(HasSubstr("[delta_rule] a second derivative is not implemented")));
}

TEST(DeltaRule, PackedSequencesHaveTheirOwnStates) {
  DeltaRuleTensors packed = random_inputs();
  for (const auto& [name, input] : kDifferentiable) {
    if ((packed.*input).defined() && (packed.*input).dim() > 2 && name != "initial_state") {
      packed.*input = (packed.*input).narrow(0, 0, 1);
    }
  }
  packed.initial_state = at::randn({3, HV, K, V});
  packed.cu_seqlens = at::tensor({0, 15, 15, static_cast<int>(T)}, at::kInt);
  const DeltaRuleOutput output = delta_rule(packed, {}, /*output_final_state=*/true);
  EXPECT_EQ(output.final_state.sizes(), (std::vector<int64_t>{3, HV, K, V}));
  EXPECT_TRUE(at::equal(output.final_state[1], packed.initial_state[1]));
}

TEST(DeltaRuleDecodeStep, AdvancesTheStateInPlace) {
  DeltaRuleTensors inputs = random_inputs();
  const DeltaRuleOutput whole = delta_rule(inputs, {}, /*output_final_state=*/true);
  const at::Tensor state = inputs.initial_state.clone();
  const auto version = state._version();
  inputs.initial_state = at::Tensor();
  const at::Tensor o = delta_rule_decode_step(inputs, state);
  EXPECT_GT(state._version(), version);
  EXPECT_TRUE(close(o, whole.o, 1e-5, "o"));
  EXPECT_TRUE(close(state, whole.final_state, 1e-5, "state"));
}

TEST(DeltaRuleDecodeStep, PicksStatesAndTakesTokensBack) {
  DeltaRuleTensors inputs = random_inputs();
  const DeltaRuleOutput whole = delta_rule(inputs, {}, /*output_final_state=*/true);
  const at::Tensor state = at::cat({at::randn({1, HV, K, V}), inputs.initial_state});
  const at::Tensor before = state.clone();
  inputs.initial_state = at::Tensor();
  const DecodeRows rows = {.state_indices = at::tensor({1, 2}, at::kInt),
                           .num_accepted = at::tensor({0, static_cast<int>(T)}, at::kInt)};
  EXPECT_TRUE(close(delta_rule_decode_step(inputs, state, {}, rows), whole.o, 1e-5, "o"));
  EXPECT_TRUE(at::equal(state.narrow(0, 0, 2), before.narrow(0, 0, 2)));
  EXPECT_TRUE(close(state[2], whole.final_state[1], 1e-5, "state"));
}

TEST(DeltaRuleDecodeStep, HasNoGradient) {
  DeltaRuleTensors inputs = random_inputs();
  const at::Tensor state = inputs.initial_state.clone();
  inputs.initial_state = at::Tensor();
  inputs.v.requires_grad_(true);
  const at::Tensor o = delta_rule_decode_step(inputs, state);
  EXPECT_THAT([&] { o.sum().backward(); }, ThrowsMessage<c10::Error>(HasSubstr("comba::delta_rule_decode_step")));
}

TEST(DeltaRuleMeta, HasTheShapesAndDtypesOfTheRealThing) {
  DeltaRuleTensors inputs = random_inputs();
  for (auto input : {&DeltaRuleTensors::q, &DeltaRuleTensors::k, &DeltaRuleTensors::v}) {
    inputs.*input = (inputs.*input).to(at::kBFloat16);
  }
  DeltaRuleTensors meta = inputs;
  for (const auto& [name, input] : kDifferentiable) {
    if ((meta.*input).defined()) meta.*input = (meta.*input).to(at::kMeta).requires_grad_(true);
  }
  const DeltaRuleOutput real = delta_rule(inputs, {}, true), shapes = delta_rule(meta, {}, true);
  EXPECT_EQ(shapes.o.sizes(), real.o.sizes());
  EXPECT_EQ(shapes.o.scalar_type(), at::kBFloat16);
  EXPECT_EQ(shapes.final_state.sizes(), real.final_state.sizes());
  EXPECT_EQ(shapes.final_state.scalar_type(), at::kFloat);
  shapes.o.sum().backward();
  for (const auto& [name, input] : kDifferentiable) {
    if (!(meta.*input).defined()) continue;
    EXPECT_EQ((meta.*input).grad().sizes(), (meta.*input).sizes()) << name;
  }
}

TEST(DeltaRuleErrors, NameTheRuleTheValueAndTheTensor) {
  const auto with = [](auto change) {
    DeltaRuleTensors inputs = random_inputs();
    change(inputs);
    return [inputs] { delta_rule(inputs); };
  };
  EXPECT_THAT(with([](auto& x) {
                x.q = at::randn({B, T, H, 300});
              }),
              ThrowsMessage<Error>(HasSubstr("head_dim_k must be in 1..256; got 300")));
  EXPECT_THAT(with([](auto& x) { x.v = x.v.to(at::kDouble); }),
              ThrowsMessage<Error>(HasSubstr("v must be f32, bf16, f16, i32 or i64; got Double")));
  EXPECT_THAT(with([](auto& x) { x.k = x.k.to(at::kHalf); }), ThrowsMessage<Error>(HasSubstr("k must be f32")));
  EXPECT_THAT(with([](auto& x) { x.b = at::ones({}); }),
              ThrowsMessage<Error>(HasSubstr("b must have 1 to 4 dimensions; got 0")));
  EXPECT_THAT(with([](auto& x) {
                x.q = at::randn({T, H, K});
              }),
              ThrowsMessage<Error>(HasSubstr("q must be [B, T, H, K]")));
  EXPECT_THAT(with([](auto& x) { x.beta_logit = at::Tensor(); }), ThrowsMessage<Error>(HasSubstr("beta")));
}

TEST(DeltaRuleErrors, NameTheTensorThatIsOnAnotherDevice) {
  DeltaRuleTensors inputs = random_inputs();
  inputs.k = inputs.k.to(at::kMeta);
  torch::jit::Stack stack;
  push_inputs(stack, inputs);
  push_options(stack, {});
  torch::jit::push(stack, /*output_final_state=*/false, /*check_borders=*/false, /*save_states=*/true);
  EXPECT_THAT([&] { delta_rule_kernel(stack); },
              ThrowsMessage<Error>(HasSubstr("k must be on cpu as the first input is; got meta")));
}

/// The arguments of a call by the operator's schema: what `given` holds by name, defaults elsewhere.
torch::jit::Stack arguments(const c10::OperatorHandle& op, const std::map<std::string, c10::IValue>& given) {
  torch::jit::Stack stack;
  for (const c10::Argument& argument : op.schema().arguments()) {
    const auto found = given.find(argument.name());
    stack.push_back(found == given.end() ? argument.default_value().value_or(c10::IValue()) : found->second);
  }
  return stack;
}

TEST(DeltaRuleBackward, ComputesWhatTheMaskAsksFor) {
  const auto op = c10::Dispatcher::singleton().findSchemaOrThrow("comba::delta_rule_backward", "");
  const DeltaRuleTensors x = random_inputs();
  const std::vector<bool> only_k = {false, true,  false, false, false, false, false,
                                    false, false, false, false, false, false};
  torch::jit::Stack stack = arguments(op, {{"do", at::randn({B, T, HV, V})},
                                           {"q", x.q},
                                           {"k", x.k},
                                           {"v", x.v},
                                           {"beta_logit", x.beta_logit},
                                           {"a", x.a},
                                           {"A_log", x.A_log},
                                           {"dt_bias", x.dt_bias},
                                           {"grad_mask", only_k}});
  op.callBoxed(&stack);
  const auto gradients = stack[0].toTensorVector();
  ASSERT_EQ(gradients.size(), only_k.size());
  for (size_t i = 0; i < only_k.size(); ++i) EXPECT_EQ(gradients[i].numel(), only_k[i] ? x.k.numel() : 0) << i;
}

TEST(DeltaRuleErrors, NameAnUnknownRule) {
  const auto op = c10::Dispatcher::singleton().findSchemaOrThrow("comba::delta_rule", "");
  const DeltaRuleTensors x = random_inputs();
  torch::jit::Stack stack = arguments(op, {{"q", x.q}, {"k", x.k}, {"v", x.v}, {"rule", "delta"}});
  EXPECT_THAT([&] { op.callBoxed(&stack); },
              ThrowsMessage<Error>(HasSubstr("rule must be comba or gated_delta; got delta")));
}

/// What a projection gives its gradient back to as one.
TEST(DeltaRule, GradientsOfNeighbouringColumnsAreNeighbours) {
  const DeltaRuleTensors inputs = random_inputs();
  const auto by_token = [](const at::Tensor& heads) { return heads.flatten(2); };
  const at::Tensor all = at::cat({by_token(inputs.q), by_token(inputs.k), by_token(inputs.v)}, 2);
  const std::vector<at::Tensor> columns = cut_columns(all, {H * K, H * K, HV * V});
  DeltaRuleTensors own = as_leaves(inputs, at::kFloat), joined = own;
  joined.q = columns[0].view({B, T, H, K}).detach().requires_grad_();
  joined.k = columns[1].view({B, T, H, K}).detach().requires_grad_();
  joined.v = columns[2].view({B, T, HV, V}).detach().requires_grad_();
  const auto gradients_of = [](const DeltaRuleTensors& x) {
    const at::Tensor o = delta_rule(x, {}).o;
    return torch::autograd::grad({o}, {x.q, x.k, x.v, x.d}, {o.detach()});
  };
  const auto expected = gradients_of(own), gradients = gradients_of(joined);
  for (size_t i = 0; i < expected.size(); ++i) EXPECT_TRUE(at::equal(gradients[i], expected[i])) << i;
  EXPECT_TRUE(joined_columns({by_token(gradients[0]), by_token(gradients[1]), by_token(gradients[2])}).defined());
}

}  // namespace
}  // namespace comba
