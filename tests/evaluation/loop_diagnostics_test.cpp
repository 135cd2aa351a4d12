#include "evaluation/loop_diagnostics.h"

#include <gtest/gtest.h>
#include <torch/utils.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "nn/mixers/comba.h"
#include "support/delta_rule_recurrence.h"
#include "support/tiny_run.h"

namespace comba::evaluation {
namespace {

constexpr std::int64_t T = 150;  // two spans of transitions and some tokens more

models::ModelConfig model_like(const std::string& type, const std::string& rule, const std::string& convention) {
  models::ModelConfig config = testing::tiny_model_config();
  config.model_type = type;
  config.rule = rule;
  config.convention = convention;
  config.initializer_range = 0.3;  // so that gates and keys differ from token to token
  config.correction_factor = 0.7;
  return config;
}

nn::CombaMixer& mixer_of(models::CausalLM& model, std::size_t layer) {
  std::vector<nn::CombaMixer*> found;
  for (const auto& item : model.named_modules("", /*include_self=*/false)) {
    if (auto* mixer = dynamic_cast<nn::CombaMixer*>(item.value().get())) found.push_back(mixer);
  }
  return *found.at(layer);
}

at::Tensor some_ids() {
  torch::manual_seed(3);
  return at::randint(256, {1, T}, at::kLong);
}

/// What a layer gives to its operator, in double.
DeltaRuleTensors inputs_of(models::CausalLM& model, std::size_t layer) {
  const at::NoGradGuard no_grad;
  DeltaRuleTensors inputs;
  mixer_of(model, layer).observe([&](const DeltaRuleTensors& given) { inputs = given; });
  model.loss(some_ids(), some_ids());
  mixer_of(model, layer).observe({});
  for (at::Tensor* tensor : {&inputs.q, &inputs.k, &inputs.v, &inputs.b, &inputs.d, &inputs.beta_logit, &inputs.a,
                             &inputs.A_log, &inputs.dt_bias}) {
    if (tensor->defined()) *tensor = tensor->to(at::kDouble);
  }
  return inputs;
}

/// The transition of each token and value head by the definition: what one token makes of the state I when it writes
/// nothing.  [T, HV, K, K]
at::Tensor transitions(DeltaRuleTensors inputs, const DeltaRuleOptions& options) {
  const auto token_as_sequence = [](at::Tensor& x) { x = x.transpose(0, 1).contiguous(); };
  for (at::Tensor* x : {&inputs.q, &inputs.k, &inputs.v, &inputs.beta_logit, &inputs.a}) token_as_sequence(*x);
  const std::int64_t key_dim = inputs.k.size(3), num_heads = inputs.v.size(2);
  inputs.v = at::zeros({T, 1, num_heads, key_dim}, at::kDouble);
  inputs.initial_state = at::eye(key_dim, at::kDouble).expand({T, num_heads, key_dim, key_dim});
  return test::delta_rule_recurrence(inputs, options).final_state;
}

double value_at(const at::Tensor& values, double level) {
  return at::quantile(values.flatten(), level, std::nullopt, /*keepdim=*/false, "linear").item<double>();
}

void expect_quantiles(const Quantiles& found, const at::Tensor& values, double tolerance, const char* what) {
  for (std::size_t i = 0; i < found.size(); ++i) {
    const double expected = value_at(values, kQuantileLevels[i]);
    EXPECT_NEAR(found[i], expected, tolerance * std::max(1.0, std::abs(expected))) << what << ' ' << kQuantileLevels[i];
  }
}

class LoopsOf : public ::testing::TestWithParam<std::array<const char*, 3>> {
 protected:
  LoopsOf() : model_(model_like(GetParam()[0], GetParam()[1], GetParam()[2])) { model_.initialize(1); }
  models::CausalLM model_;
};

TEST_P(LoopsOf, AgreeWithTheTransitionsOfTheDefinition) {
  const std::vector<LoopDiagnostics> found = diagnose_loops(model_, some_ids());
  ASSERT_EQ(found.size(), 2u);
  for (std::size_t layer = 0; layer < found.size(); ++layer) {
    const LoopDiagnostics& loop = found[layer];
    EXPECT_EQ(loop.module, "model.layers." + std::to_string(layer) + ".attn");
    const DeltaRuleTensors inputs = inputs_of(model_, layer);
    const DeltaRuleOptions& options = mixer_of(model_, layer).options().delta_rule;
    const at::Tensor A = transitions(inputs, options);
    const at::Tensor decay =
        (-inputs.A_log.exp() * at::softplus(inputs.a + inputs.dt_bias)).exp().squeeze(0);  // [T, HV]
    const at::Tensor trace = A.diagonal(0, 2, 3).sum(-1);
    const at::Tensor along_key = trace - (A.size(3) - 1) * decay;  // all other eigenvalues are the decay
    expect_quantiles(loop.decay, decay, 1e-5, "decay");
    expect_quantiles(loop.key_eigenvalue, along_key, 1e-4, "eigenvalue along the key");
    EXPECT_NEAR(loop.negative_share, along_key.lt(0).to(at::kDouble).mean().item<double>(), 1e-3);
    expect_quantiles(loop.decay_memory, -1 / decay.log().mean(0), 1e-4, "memory by decay");

    at::Tensor log_share = at::zeros({A.size(1)}, at::kDouble);
    for (std::int64_t span = 0; span < T / kMemorySpan; ++span) {
      at::Tensor product = A[span * kMemorySpan];
      for (std::int64_t t = 1; t < kMemorySpan; ++t) product = at::matmul(A[span * kMemorySpan + t], product);
      log_share += (product.square().sum({1, 2}) / A.size(3)).clamp_min(1e-76).log() / 2;
    }
    expect_quantiles(loop.memory, -(T / kMemorySpan * kMemorySpan) / log_share, 1e-3, "memory");

    const at::Tensor state = test::delta_rule_recurrence(inputs, options).final_state;
    EXPECT_NEAR(loop.state_norm, state.square().sum({2, 3}).mean().sqrt().item<double>(), 1e-4 * loop.state_norm);
  }
}

TEST_P(LoopsOf, QueriesAndKeys) {
  const LoopDiagnostics loop = diagnose_loops(model_, some_ids()).at(1);
  const DeltaRuleTensors inputs = inputs_of(model_, 1);
  EXPECT_EQ(loop.query_ratio.has_value(), inputs.d.defined());
  if (inputs.d.defined()) {
    const bool is_paper = GetParam()[2] == std::string("paper");
    const at::Tensor d = is_paper ? inputs.d : inputs.d * inputs.b;  // the published kernels correct by b k
    const at::Tensor corrected = inputs.q - d.view({1, 1, -1, 1}) * inputs.k;
    const at::Tensor ratio = corrected.norm(2, {3}) / inputs.q.norm(2, {3});
    expect_quantiles(*loop.query_ratio, ratio, 1e-3, "|q - d k| / |q|");
    const at::Tensor cosine = (corrected * inputs.q).sum(-1) / corrected.norm(2, {3}) / inputs.q.norm(2, {3});
    EXPECT_NEAR(*loop.query_cosine, cosine.mean().item<double>(), 1e-4);
    EXPECT_NEAR(*loop.correction, 0.7, 1e-6);
  }
  const at::Tensor k = inputs.k / inputs.k.norm(2, {3}, true);
  double coherence = 0;
  for (std::int64_t apart = 1; apart <= kNearKeys; ++apart) {
    coherence += (k.slice(1, apart) * k.slice(1, 0, T - apart)).sum(-1).abs().mean().item<double>();
  }
  EXPECT_NEAR(loop.key_coherence, coherence / kNearKeys, 1e-5);
}

INSTANTIATE_TEST_SUITE_P(Rules, LoopsOf,
                         ::testing::Values(std::array{"comba", "splr", "paper"}, std::array{"comba", "splr", "fla"},
                                           std::array{"comba", "iplr", "paper"},
                                           std::array{"gated_deltanet", "splr", "paper"}));

TEST(LoopDiagnostics, ALoopThatForgetsNothing) {
  models::ModelConfig config = model_like("comba", "splr", "paper");
  models::CausalLM model(config);
  model.initialize(1);
  {
    const at::NoGradGuard no_grad;
    for (const auto& item : model.named_parameters()) {
      if (item.key().ends_with("A_log")) item.value().fill_(-40);        // alpha = 1
      if (item.key().ends_with("b_proj.weight")) item.value().fill_(0);  // beta = 1/2
      if (item.key().ends_with(".decay")) item.value().fill_(-40);       // b = 0: nothing is erased
    }
  }
  const LoopDiagnostics loop = diagnose_loops(model, some_ids()).at(0);
  EXPECT_EQ(loop.decay, (Quantiles{1, 1, 1, 1, 1, 1, 1}));
  EXPECT_EQ(loop.decay_memory[0], kLongestMemory);
  EXPECT_EQ(loop.memory[0], kLongestMemory);
  EXPECT_NEAR(loop.feedback, 0, 1e-6);
  EXPECT_EQ(loop.negative_share, 0);
}

TEST(LoopDiagnostics, OfPackedSequencesShortTextsAndOtherModels) {
  models::CausalLM model(model_like("comba", "splr", "paper"));
  model.initialize(1);
  const at::Tensor ids = some_ids();
  const std::vector<LoopDiagnostics> packed = diagnose_loops(model, ids, at::tensor({0L, 70L, T}, at::kLong));
  const std::vector<LoopDiagnostics> first = diagnose_loops(model, ids.slice(1, 0, 70));
  const std::vector<LoopDiagnostics> second = diagnose_loops(model, ids.slice(1, 70));
  const double mean_square = (std::pow(first[1].state_norm, 2) + std::pow(second[1].state_norm, 2)) / 2;
  EXPECT_NEAR(packed[1].state_norm, std::sqrt(mean_square), 1e-4 * packed[1].state_norm);

  EXPECT_EQ(diagnose_loops(model, ids.slice(1, 0, 1)).at(0).key_coherence, 0);
  EXPECT_TRUE(has_control_loops(model));
  models::ModelConfig open = testing::tiny_model_config();
  open.model_type = "linear_attn";
  models::CausalLM other(open);
  other.initialize(1);
  EXPECT_FALSE(has_control_loops(other));
  EXPECT_TRUE(diagnose_loops(other, ids).empty());
}

TEST(LoopDiagnostics, OfABf16PassAreNearThoseOfFp32AndChangeNothing) {
  models::CausalLM model(model_like("comba", "splr", "paper"));
  model.initialize(1);
  const at::NoGradGuard no_grad;
  const double before = model.loss(some_ids(), some_ids()).item<double>();
  const LoopDiagnostics wide = diagnose_loops(model, some_ids()).at(1);
  const LoopDiagnostics narrow = diagnose_loops(model, some_ids(), {}, {.compute_dtype = at::kBFloat16}).at(1);
  EXPECT_NEAR(narrow.decay[3], wide.decay[3], 0.02);
  EXPECT_NEAR(narrow.key_eigenvalue[3], wide.key_eigenvalue[3], 0.02);
  EXPECT_NEAR(narrow.state_norm, wide.state_norm, 0.05 * wide.state_norm);
  EXPECT_EQ(model.loss(some_ids(), some_ids()).item<double>(), before);
}

}  // namespace
}  // namespace comba::evaluation
