// The mixers of this project's operator as wholes, under every switch: against the paper's equations in double.

#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/types.h>
#include <torch/utils.h>

#include "mixer_cases.h"
#include "nn/mixers/gated_deltanet.h"
#include "support/delta_rule_recurrence.h"
#include "support/tensor_compare.h"

namespace comba::nn {
namespace {

using test::close;

constexpr int64_t B = 2, T = 75, D = kWidth;

/// The layer's equations (nn/mixers/comba.h) from LibTorch's
/// operations, in the dtype of the parameters.
at::Tensor definition(const torch::OrderedDict<std::string, at::Tensor>& p, const CombaOptions& options,
                      const at::Tensor& x) {
  const auto projected = [&](const std::string& name) { return at::linear(x, p[name + "_proj.weight"]); };
  const auto mixed = [&](const std::string& name, int64_t heads) {
    const at::Tensor before = projected(name);
    if (!options.use_short_conv) return at::silu(before).unflatten(-1, {heads, -1});
    const at::Tensor z = at::conv1d(before.transpose(1, 2), p[name + "_conv1d.weight"], {}, 1, 3, 1, before.size(2));
    return at::silu(z.narrow(2, 0, x.size(1)).transpose(1, 2)).unflatten(-1, {heads, -1});
  };
  DeltaRuleTensors inputs;
  inputs.q = mixed("q", options.num_heads);
  inputs.k = mixed("k", options.num_heads);
  inputs.v = mixed("v", options.num_v_heads);
  if (options.use_inner_decay) inputs.b = p["decay"].sigmoid();
  if (options.use_output_correction) inputs.d = p["D"];
  inputs.beta_logit = projected("b");
  inputs.a = projected("a");
  inputs.A_log = p["A_log"];
  inputs.dt_bias = p["dt_bias"];
  const at::Tensor o = test::delta_rule_recurrence(inputs, options.delta_rule).o;
  at::Tensor y = o / (o.square().mean(-1, true) + options.norm_eps).sqrt() * p["o_norm.weight"];
  if (options.use_output_gate) {
    const at::Tensor gate = projected("g").view_as(y);
    y = y * (options.gate_function == GateFunction::sigmoid ? at::sigmoid(gate) : at::silu(gate));
  }
  return at::linear(y.flatten(2), p["o_proj.weight"]);
}

void expect_agreement(const CombaOptions& options) {
  CombaMixer layer(options, {});
  randomise(layer);
  torch::OrderedDict<std::string, at::Tensor> wide;
  for (const auto& parameter : layer.named_parameters()) {
    wide.insert(parameter.key(), parameter.value().detach().to(at::kDouble).requires_grad_(true));
  }
  const at::Tensor x = at::randn({B, T, D}).requires_grad_(true);
  const at::Tensor wide_x = x.detach().to(at::kDouble).requires_grad_(true);
  const at::Tensor y = layer.forward(x, {}, nullptr), expected = definition(wide, options, wide_x);
  EXPECT_TRUE(close(y, expected, 1e-5, "y"));
  const at::Tensor dy = at::randn_like(y);
  y.backward(dy);
  expected.backward(dy.to(at::kDouble));
  EXPECT_TRUE(close(x.grad(), wide_x.grad(), 1e-4, "dx"));
  for (const auto& parameter : layer.named_parameters()) {
    EXPECT_TRUE(close(parameter.value().grad(), wide[parameter.key()].grad(), 1e-3, "gradient of " + parameter.key()));
  }
}

TEST(CombaMixer, AgreesWithItsEquationsUnderEverySwitch) {
  expect_agreement(small_comba());
  for (bool CombaOptions::*off : {&CombaOptions::use_short_conv, &CombaOptions::use_output_gate,
                                  &CombaOptions::use_output_correction, &CombaOptions::use_inner_decay}) {
    CombaOptions options = small_comba();
    options.*off = false;
    expect_agreement(options);
  }
  CombaOptions fla = small_comba();
  fla.delta_rule.convention = Convention::fla;
  expect_agreement(fla);
}

TEST(CombaMixer, AgreesWithItsEquationsAsIplrAndAsGatedDeltaNet) {
  CombaOptions iplr = small_comba();
  iplr.delta_rule.rule = Rule::gated_delta;
  iplr.delta_rule.beta_scale = 2;
  expect_agreement(iplr);
  expect_agreement(as_gated_deltanet(small_comba(), /*negative_eigenvalues=*/false));
  expect_agreement(as_gated_deltanet(small_comba(), /*negative_eigenvalues=*/true));
}

}  // namespace
}  // namespace comba::nn
