// Every rule of the arguments has its message.
#include <gtest/gtest.h>

#include <functional>

#include "comba/error.h"
#include "operators/delta_rule_case.h"

namespace comba::test {
namespace {

struct BrokenRule {
  const char* name;
  std::function<void(DeltaRuleForward&)> breaks;
  const char* message;  // part of the text
};

Description small() {
  Description x;
  x.T = 8;
  x.H = 2;
  x.HV = 4;
  x.K = x.V = 4;
  return x;
}

std::vector<BrokenRule> broken_rules() {
  static float storage[4096];
  const auto view = [](std::initializer_list<std::int64_t> sizes, DType dtype = DType::f32) {
    return View(storage, dtype, sizes);
  };
  return {
      {"q_absent", [](auto& x) { x.inputs.q = {}; }, "q must be given"},
      {"k_absent", [](auto& x) { x.inputs.k = {}; }, "k must be given"},
      {"v_absent", [](auto& x) { x.inputs.v = {}; }, "v must be given"},
      {"q_rank",
       [=](auto& x) {
         x.inputs.q = view({8, 2, 4});
       },
       "q must have shape [B, T, H, K]; got [8, 2, 4] f32"},
      {"k_shape",
       [=](auto& x) {
         x.inputs.k = view({1, 8, 2, 5});
       },
       "k must have shape [B, T, H, K] = [1, 8, 2, 4]; got [1, 8, 2, 5] f32"},
      {"v_tokens",
       [=](auto& x) {
         x.inputs.v = view({1, 9, 4, 4});
       },
       "v must have shape [B, T, HV, V] = [1, 8, 4, 4]"},
      {"head_dim_k",
       [=](auto& x) {
         x.inputs.q = view({1, 8, 2, 257});
       },
       "head_dim_k must be in 1..256; got 257"},
      {"head_dim_v",
       [=](auto& x) {
         x.inputs.v = view({1, 8, 4, 0});
       },
       "head_dim_v must be in 1..256; got 0"},
      {"overflow",
       [=](auto& x) {
         x.inputs.q = view({std::int64_t{1} << 40, std::int64_t{1} << 40, 2, 4});
       },
       "sizes must fit into memory"},
      {"value_heads",
       [=](auto& x) {
         x.inputs.v = view({1, 8, 3, 4});
       },
       "value heads must be a multiple of key heads; got HV = 3, H = 2"},
      {"null_pointer", [](auto& x) { x.inputs.k.data = nullptr; }, "k must point to its data"},
      {"stride", [](auto& x) { x.inputs.q.strides[3] = 2; }, "q must have stride 1 in its last dimension; got 2"},
      {"q_dtype", [](auto& x) { x.inputs.q.dtype = DType::i32; }, "q must be f32, bf16 or f16; got [1, 8, 2, 4] i32"},
      {"k_dtype", [](auto& x) { x.inputs.k.dtype = DType::bf16; }, "k must be f32; got [1, 8, 2, 4] bf16"},
      {"no_beta", [](auto& x) { x.inputs.beta_logit = {}; },
       "exactly one of beta and beta_logit must be given; got neither"},
      {"both_betas",
       [=](auto& x) {
         x.inputs.beta = view({1, 8, 4});
       },
       "exactly one of beta and beta_logit must be given; got both"},
      {"no_decay", [](auto& x) { x.inputs.a = {}; }, "exactly one of g and a must be given; got neither"},
      {"both_decays",
       [=](auto& x) {
         x.inputs.g = view({1, 8, 4});
       },
       "exactly one of g and a must be given; got both"},
      {"no_A_log", [](auto& x) { x.inputs.A_log = {}; }, "A_log (with a) must be given"},
      {"no_dt_bias", [](auto& x) { x.inputs.dt_bias = {}; }, "dt_bias (with a) must be given"},
      {"A_log_with_g",
       [=](auto& x) {
         x.inputs.a = {};
         x.inputs.g = view({1, 8, 4});
       },
       "A_log and dt_bias belong to a"},
      {"beta_shape",
       [=](auto& x) {
         x.inputs.beta_logit = view({1, 8, 2});
       },
       "beta_logit must have shape [B, T, HV] = [1, 8, 4]"},
      {"p_and_b",
       [=](auto& x) {
         x.inputs.p = view({1, 8, 2, 4});
       },
       "at most one of p and b may be given"},
      {"p_heads",
       [=](auto& x) {
         x.inputs.b = {};
         x.inputs.p = view({1, 8, 3, 4});
       },
       "p must have H = 2 or HV = 4 heads; got [1, 8, 3, 4] f32"},
      {"b_shape", [=](auto& x) { x.inputs.b = view({4}); }, "b must have shape [H] = [2]"},
      {"b_dtype", [=](auto& x) { x.inputs.b = view({2}, DType::bf16); }, "b must be f32; got [2] bf16"},
      {"d_with_p_per_value_head",
       [=](auto& x) {
         x.options.convention = Convention::fla;
         x.inputs.b = {};
         x.inputs.p = view({1, 8, 4, 4});
       },
       "d in convention fla corrects the query with p, so p must have H = 2 heads"},
      {"beta_scale_of_comba", [](auto& x) { x.options.beta_scale = 2; },
       "beta_scale above 1 belongs to rule gated_delta"},
      {"beta_scale_range", [](auto& x) { x.options.beta_scale = 0; }, "beta_scale must be in (0, 2]; got 0"},
      {"beta_scale_with_beta",
       [=](auto& x) {
         x.options.beta_scale = 0.5;
         x.inputs.beta_logit = {};
         x.inputs.beta = view({1, 8, 4});
       },
       "beta_scale needs beta_logit"},
      {"eps", [](auto& x) { x.options.l2norm_eps = -1; }, "l2norm_eps must be finite and >= 0; got -1"},
      {"scale", [](auto& x) { x.options.scale = INFINITY; }, "scale must be finite; got inf"},
      {"rule", [](auto& x) { x.options.rule = static_cast<Rule>(7); }, "rule must be comba or gated_delta; got 7"},
      {"convention", [](auto& x) { x.options.convention = static_cast<Convention>(7); },
       "convention must be paper or fla; got 7"},
      {"initial_state_shape",
       [=](auto& x) {
         x.inputs.initial_state = view({2, 4, 4, 4});
       },
       "initial_state must have shape [N, HV, K, V] = [1, 4, 4, 4]"},
      {"initial_state_dtype",
       [=](auto& x) {
         x.inputs.initial_state = view({1, 4, 4, 4}, DType::bf16);
       },
       "initial_state must be f32"},
      {"o_absent", [](auto& x) { x.o = {}; }, "o must be given"},
      {"o_dtype", [](auto& x) { x.o.dtype = DType::bf16; }, "o must be f32"},
      {"final_state_shape",
       [=](auto& x) {
         x.final_state = view({1, 4, 4});
       },
       "final_state must have shape [N, HV, K, V]"},
  };
}

class ArgumentRule : public testing::TestWithParam<BrokenRule> {};

TEST_P(ArgumentRule, IsNamedInTheMessageAndNothingIsWritten) {
  Case c(small());
  Buffer o(DType::f32, {1, 8, 4, 4}), state(DType::f32, {1, 4, 4, 4});
  const Buffer untouched = o;
  DeltaRuleForward args = {c.options, c.inputs(), o.view(), state.view()};
  ASSERT_NO_THROW(delta_rule::check(args));
  GetParam().breaks(args);
  try {
    delta_rule_forward(args, {});
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::invalid_argument);
    const std::string text = error.what();
    EXPECT_EQ(text.rfind("[delta_rule_forward] ", 0), 0u) << text;
    EXPECT_NE(text.find(GetParam().message), std::string::npos) << text;
  }
  EXPECT_TRUE(o.same_bits(untouched));
}

INSTANTIATE_TEST_SUITE_P(All, ArgumentRule, testing::ValuesIn(broken_rules()),
                         [](const auto& info) { return std::string(info.param.name); });

void expect_message(const std::function<void()>& call, const std::string& message) {
  try {
    call();
    FAIL() << "accepted; expected " << message;
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find(message), std::string::npos) << error.what();
  }
}

TEST(Arguments, CuSeqlens) {
  const std::vector<std::pair<std::vector<std::int64_t>, const char*>> broken = {
      {{1, 8}, "must start at 0; got 1"},
      {{0, 5, 3, 8}, "must never decrease; got 5 at 1, 3 at 2"},
      {{0, 7}, "must end at T = 8; got 7 at 1"},
      {{0}, "must end at T = 8; got 0 at 0"},
  };
  for (const auto& [values, message] : broken) {
    Description x = small();
    x.initial_state = x.final_gradient = false;
    x.cu_seqlens = values;
    Case c(x);
    expect_message([&] { delta_rule::check("test", c.options, c.inputs()); }, message);
  }
  Description x = small();
  x.B = 2;
  x.cu_seqlens = {0, 8};
  Case c(x);
  expect_message([&] { delta_rule::check("test", c.options, c.inputs()); }, "cu_seqlens needs B = 1; got B = 2");
}

TEST(Arguments, GradientsNeedTheirInput) {
  Case c(small());
  Buffer d_o(DType::f32, {1, 8, 4, 4}), dp(DType::f32, {1, 8, 2, 4}), dq(DType::f32, {1, 8, 2, 5});
  DeltaRuleBackward args = {.options = c.options, .inputs = c.inputs(), .do_ = d_o.view()};
  args.dp = dp.view();
  expect_message([&] { delta_rule::check(args); }, "dp asked for, but its input is absent");
  args.dp = {};
  args.dq = dq.view();
  expect_message([&] { delta_rule::check(args); },
                 "dq must have the shape of its input [1, 8, 2, 4] f32; got [1, 8, 2, 5] f32");
}

/// Breaks one view of a good call in every way a view can be wrong; each time the message must name it.
template <class Args, class AnyView>
void expect_named_when_broken(const Args& good, AnyView Args::*view, const std::string& name) {
  SCOPED_TRACE(name);
  ASSERT_NO_THROW(delta_rule::check(good));
  ASSERT_TRUE((good.*view).given());
  const auto broken = [&](const auto& change, const std::string& message) {
    Args args = good;
    change(args.*view);
    expect_message([&] { delta_rule::check(args); }, name + message);
  };
  broken([](auto& x) { x.data = nullptr; }, " must point to its data");
  broken([](auto& x) { x.sizes[0] += 1; }, " must have ");
  if ((good.*view).rank > 1) broken([](auto& x) { x.rank -= 1; }, " must have ");
  broken([](auto& x) { x.dtype = DType::i32; }, " must be ");
  if ((good.*view).rank == 4) broken([](auto& x) { x.strides[3] = 2; }, " must have stride 1 in its last dimension");
}

TEST(Arguments, EveryOutputMustFit) {
  Case c(small());
  Buffer o(DType::f32, {1, 8, 4, 4}), state(DType::f32, {1, 4, 4, 4});
  const DeltaRuleForward forward = {c.options, c.inputs(), o.view(), state.view()};
  expect_named_when_broken(forward, &DeltaRuleForward::o, "o");
  expect_named_when_broken(forward, &DeltaRuleForward::final_state, "final_state");
  DeltaRuleDecode decode = {c.options, c.inputs(), state.view(), o.view()};
  decode.inputs.initial_state = {};
  expect_named_when_broken(decode, &DeltaRuleDecode::o, "o");
  expect_named_when_broken(decode, &DeltaRuleDecode::state, "state");
}

TEST(Arguments, EveryGradientMustFit) {
  for (const bool fused_gates : {false, true}) {
    for (const Feedback feedback : {Feedback::scalar, Feedback::per_value_head}) {
      Description x = small();
      x.fused_gates = fused_gates;
      x.feedback = feedback;
      Case c(x);
      const DeltaRuleInputs in = c.inputs();
      const DeltaRuleBackward none = {
          .options = c.options, .inputs = in, .do_ = c.d_o.view(), .d_final_state = c.d_final_state.view()};
      expect_named_when_broken(none, &DeltaRuleBackward::do_, "do_");
      expect_named_when_broken(none, &DeltaRuleBackward::d_final_state, "d_final_state");
      const auto gradient = [&](View DeltaRuleBackward::*view, const char* name, Buffer& input) {
        if (!input.given()) return;
        Buffer memory(input.dtype(), input.sizes());
        DeltaRuleBackward args = none;
        args.*view = memory.view();
        expect_named_when_broken(args, view, name);
      };
      gradient(&DeltaRuleBackward::dq, "dq", c.q);
      gradient(&DeltaRuleBackward::dk, "dk", c.k);
      gradient(&DeltaRuleBackward::dv, "dv", c.v);
      gradient(&DeltaRuleBackward::dp, "dp", c.p);
      gradient(&DeltaRuleBackward::db, "db", c.b);
      gradient(&DeltaRuleBackward::dd, "dd", c.d);
      gradient(&DeltaRuleBackward::dbeta, "dbeta", c.beta);
      gradient(&DeltaRuleBackward::dbeta_logit, "dbeta_logit", c.beta_logit);
      gradient(&DeltaRuleBackward::dg, "dg", c.g);
      gradient(&DeltaRuleBackward::da, "da", c.a);
      gradient(&DeltaRuleBackward::dA_log, "dA_log", c.A_log);
      gradient(&DeltaRuleBackward::ddt_bias, "ddt_bias", c.dt_bias);
      gradient(&DeltaRuleBackward::d_initial_state, "d_initial_state", c.initial_state);
    }
  }
}

TEST(Arguments, DecodeTakesItsStateInPlace) {
  Case c(small());
  Buffer o(DType::f32, {1, 8, 4, 4}), state(DType::f32, {1, 4, 4, 4});
  DeltaRuleDecode args = {c.options, c.inputs(), state.view(), o.view()};
  expect_message([&] { delta_rule::check(args); }, "initial_state must be absent");
  args.inputs.initial_state = {};
  EXPECT_NO_THROW(delta_rule::check(args));
  args.state = {};
  expect_message([&] { delta_rule::check(args); }, "state must be given");
}

TEST(Arguments, WorkspaceMustBeLargeEnoughAndAligned) {
  Case c(small());
  Buffer o(DType::f32, {1, 8, 4, 4});
  const DeltaRuleForward args = {c.options, c.inputs(), o.view(), {}};
  expect_message([&] { delta_rule_forward(args, {}); }, "workspace must have ");
  std::vector<std::uint8_t> memory(workspace_bytes(args) + 128);
  const auto address = reinterpret_cast<std::uintptr_t>(memory.data());
  std::uint8_t* aligned = memory.data() + (64 - address % 64) % 64;
  expect_message([&] { delta_rule_forward(args, {aligned + 8, workspace_bytes(args)}); }, "aligned to 64 bytes");
  EXPECT_NO_THROW(delta_rule_forward(args, {aligned, workspace_bytes(args)}));
}

TEST(Arguments, ForcedImplementation) {
  Case c(small());
  Buffer o(DType::f32, {1, 8, 4, 4});
  DeltaRuleForward args = {c.options, c.inputs(), o.view(), {}};
  setenv("COMBA_IMPL", "cpu.reference", 1);
  EXPECT_EQ(workspace_bytes(args), 0);
  args.execution.device = DeviceType::cuda;
  expect_message([&] { workspace_bytes(args); },
                 "[delta_rule_forward] no implementation supports this call on the GPU: cpu.reference works on tensors "
                 "in host memory only");
  args.execution.device = DeviceType::cpu;
  setenv("COMBA_IMPL", "cpu.magic", 1);
  expect_message([&] { workspace_bytes(args); }, "COMBA_IMPL must be one of ");
  unsetenv("COMBA_IMPL");
  EXPECT_GT(workspace_bytes(args), 0);
}

}  // namespace
}  // namespace comba::test
