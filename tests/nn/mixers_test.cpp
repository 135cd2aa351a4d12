// The mixers as wholes: against the paper's equations in double, and the laws every mixer obeys.

#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <memory>

#include "nn/mixers/attention.h"
#include "nn/mixers/comba.h"
#include "nn/mixers/gated_deltanet.h"
#include "support/delta_rule_recurrence.h"
#include "support/tensor_compare.h"

namespace comba::nn {
namespace {

using test::close;

constexpr int64_t B = 2, T = 75, D = 24;

CombaOptions comba_options() {
  return {
      .hidden_size = D,
      .num_heads = 2,
      .num_v_heads = 4,
      .head_k_dim = 16,
      .head_v_dim = 8,
      .norm_eps = 1e-5,
      .delta_rule = {},
  };
}

void randomise(torch::nn::Module& module) {
  torch::manual_seed(11);
  const torch::NoGradGuard no_grad;
  for (at::Tensor& parameter : module.parameters()) parameter.normal_(0, 0.3);
}

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
  expect_agreement(comba_options());
  for (bool CombaOptions::*off : {&CombaOptions::use_short_conv, &CombaOptions::use_output_gate,
                                  &CombaOptions::use_output_correction, &CombaOptions::use_inner_decay}) {
    CombaOptions options = comba_options();
    options.*off = false;
    expect_agreement(options);
  }
  CombaOptions fla = comba_options();
  fla.delta_rule.convention = Convention::fla;
  expect_agreement(fla);
}

TEST(CombaMixer, AgreesWithItsEquationsAsIplrAndAsGatedDeltaNet) {
  CombaOptions iplr = comba_options();
  iplr.delta_rule.rule = Rule::gated_delta;
  iplr.delta_rule.beta_scale = 2;
  expect_agreement(iplr);
  expect_agreement(as_gated_deltanet(comba_options(), /*negative_eigenvalues=*/false));
  expect_agreement(as_gated_deltanet(comba_options(), /*negative_eigenvalues=*/true));
}

std::map<std::string, std::shared_ptr<Mixer>> every_mixer() {
  CombaOptions without_conv = comba_options();
  without_conv.use_short_conv = false;
  const AttentionOptions attention{.hidden_size = D, .num_heads = 4, .num_kv_heads = 2, .window_size = {}};
  AttentionOptions window = attention;
  window.window_size = 9;
  window.qkv_bias = true;
  std::map<std::string, std::shared_ptr<Mixer>> mixers = {
      {"comba", std::make_shared<CombaMixer>(comba_options(), at::TensorOptions())},
      {"comba without convolution", std::make_shared<CombaMixer>(without_conv, at::TensorOptions())},
      {"gated_deltanet", std::make_shared<CombaMixer>(as_gated_deltanet(comba_options(), false), at::TensorOptions())},
      {"attention", std::make_shared<AttentionMixer>(attention, at::TensorOptions())},
      {"sliding window", std::make_shared<AttentionMixer>(window, at::TensorOptions())},
  };
  for (auto& [name, mixer] : mixers) randomise(*mixer);
  return mixers;
}

/// The outputs of one stream read in parts of these lengths.
at::Tensor in_parts(Mixer& mixer, const at::Tensor& x, const std::vector<int64_t>& lengths) {
  LayerState state = mixer.initial_state(x.size(0));
  std::vector<at::Tensor> outputs;
  int64_t position = 0;
  for (const at::Tensor& part : x.split_with_sizes(lengths, 1)) {
    outputs.push_back(mixer.forward(part, {.cu_seqlens = {}, .first_position = position}, &state));
    position += part.size(1);
  }
  return at::cat(outputs, 1);
}

TEST(EveryMixer, ReadsAStreamInAnyParts) {
  const torch::NoGradGuard no_grad;
  for (const auto& [name, mixer] : every_mixer()) {
    const at::Tensor x = at::randn({B, T, D});
    const at::Tensor whole = mixer->forward(x, {}, nullptr);
    const std::vector<int64_t> one_by_one(T, 1);
    for (const auto& lengths : {one_by_one, {T}, {40, 35}, {1, 30, 3, 41}}) {
      EXPECT_TRUE(close(in_parts(*mixer, x, lengths), whole, 1e-5, name));
    }
  }
}

TEST(EveryMixer, ReadsAStreamInPartsWithGradients) {
  for (const auto& [name, mixer] : every_mixer()) {
    const at::Tensor x = at::randn({B, T, D});
    const at::Tensor y = in_parts(*mixer, x, {40, 35});
    EXPECT_TRUE(close(y, mixer->forward(x, {}, nullptr), 1e-5, name));
    y.sum().backward();  // nothing that backward needs was overwritten
    for (const at::Tensor& parameter : mixer->parameters()) EXPECT_TRUE(parameter.grad().isfinite().all().item<bool>());
  }
}

TEST(EveryMixer, KeepsPackedSequencesApart) {
  for (const auto& [name, mixer] : every_mixer()) {
    const at::Tensor x = at::randn({1, T, D}).requires_grad_(true);
    const at::Tensor cu_seqlens = torch::tensor({0, 15, 15, 17, static_cast<int>(T)}, at::kInt);
    std::vector<at::Tensor> separate;
    for (const at::Tensor& sequence : x.split_with_sizes({15, 0, 2, T - 17}, 1)) {
      if (sequence.size(1) > 0) separate.push_back(mixer->forward(sequence, {}, nullptr));
    }
    const at::Tensor packed = mixer->forward(x, {.cu_seqlens = cu_seqlens}, nullptr), expected = at::cat(separate, 1);
    EXPECT_TRUE(close(packed, expected, 1e-5, name));
    const at::Tensor dy = at::randn_like(packed);
    EXPECT_TRUE(close(torch::autograd::grad({packed}, {x}, {dy})[0], torch::autograd::grad({expected}, {x}, {dy})[0],
                      1e-4, name + ", dx"));
  }
}

TEST(EveryMixer, SeesNoLaterToken) {
  const torch::NoGradGuard no_grad;
  for (const auto& [name, mixer] : every_mixer()) {
    const at::Tensor x = at::randn({B, T, D});
    const at::Tensor y = mixer->forward(x, {}, nullptr);
    for (int64_t t : {0, 1, 30, 63, 64, 74}) {
      at::Tensor changed = x.clone();
      changed.select(1, t).normal_();
      const at::Tensor z = mixer->forward(changed, {}, nullptr);
      EXPECT_TRUE(at::equal(z.narrow(1, 0, t), y.narrow(1, 0, t))) << name << ", token " << t;
      EXPECT_FALSE(at::equal(z.select(1, t), y.select(1, t))) << name << ", token " << t;
    }
  }
}

TEST(Attention, AWindowForgets) {
  const torch::NoGradGuard no_grad;
  const auto mixer = every_mixer().at("sliding window");
  const at::Tensor x = at::randn({1, T, D});
  at::Tensor changed = x.clone();
  changed.select(1, 20).normal_();
  const at::Tensor y = mixer->forward(x, {}, nullptr), z = mixer->forward(changed, {}, nullptr);
  EXPECT_FALSE(at::equal(y.select(1, 28), z.select(1, 28)));  // the last of the 9 tokens that see it
  EXPECT_TRUE(close(y.narrow(1, 29, T - 29), z.narrow(1, 29, T - 29), 1e-6, "after the window"));
  LayerState state = mixer->initial_state(1);
  mixer->forward(x, {}, &state);
  EXPECT_EQ(state.tensors[0].size(2), 8);
}

}  // namespace
}  // namespace comba::nn
