#include "training/optimizer.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>
#include <string>
#include <vector>

#include "comba/error.h"
#include "models/causal_lm.h"
#include "support/tiny_run.h"

namespace comba::training {
namespace {

constexpr AdamWOptions kOptions = {.beta1 = 0.9, .beta2 = 0.95, .epsilon = 1e-6, .weight_decay = 0.1};

/// A parameter with values and gradients that repeat from run to run.
NamedParameter parameter(const std::string& name, at::IntArrayRef sizes, int seed) {
  at::Tensor tensor = at::arange(c10::multiply_integers(sizes), at::kFloat).add(seed).sin().reshape(sizes).clone();
  tensor.requires_grad_(true);
  tensor.mutable_grad() = at::zeros(sizes);
  return {name, tensor};
}

void set_gradient(const NamedParameter& parameter, int step) {
  const at::Tensor phase = at::arange(parameter.tensor.numel(), at::kFloat).mul(0.7).add(step * 1.3);
  parameter.tensor.grad().copy_(phase.cos().mul(0.5).reshape(parameter.tensor.sizes()));
}

/// The formula of AdamW's doc comment, in double.
struct ReferenceWeight {
  double w, m = 0, v = 0;

  void step(double g, double lr, int t, double weight_decay) {
    w -= lr * weight_decay * w;
    m = kOptions.beta1 * m + (1 - kOptions.beta1) * g;
    v = kOptions.beta2 * v + (1 - kOptions.beta2) * g * g;
    const double m_hat = m / (1 - std::pow(kOptions.beta1, t)), v_hat = v / (1 - std::pow(kOptions.beta2, t));
    w -= lr * m_hat / (std::sqrt(v_hat) + kOptions.epsilon);
  }
};

void expect_follows_formula(at::IntArrayRef sizes, double weight_decay) {
  const NamedParameter p = parameter("p", sizes, 1);
  AdamW optimizer({p}, kOptions);
  std::vector<ReferenceWeight> reference;
  for (std::int64_t i = 0; i < p.tensor.numel(); ++i) reference.push_back({p.tensor.flatten()[i].item<double>()});
  for (int t = 1; t <= 25; ++t) {
    const double lr = 0.01 * t;
    set_gradient(p, t);
    for (std::size_t i = 0; i < reference.size(); ++i) {
      const auto g = p.tensor.grad().flatten()[static_cast<std::int64_t>(i)].item<double>();
      reference[i].step(g, lr, t, weight_decay);
    }
    optimizer.step(lr);
  }
  for (std::size_t i = 0; i < reference.size(); ++i) {
    // 25 updates of at most 0.25, each rounded to fp32 a few times.
    EXPECT_NEAR(p.tensor.flatten()[static_cast<std::int64_t>(i)].item<double>(), reference[i].w, 25 * 4 * 6e-8);
  }
}

TEST(AdamW, FollowsItsFormulaOnAMatrix) { expect_follows_formula({5, 7}, kOptions.weight_decay); }

TEST(AdamW, DoesNotDecayAVector) { expect_follows_formula({35}, 0.0); }

TEST(AdamW, DecaysMatricesAndNothingElse) {
  const models::CausalLM model(testing::tiny_model_config());
  std::set<std::string> without;
  for (const auto& item : model.named_parameters()) {
    if (!NamedParameter{item.key(), item.value()}.weight_decay) without.insert(item.key());
  }
  std::set<std::string> expected = {"model.norm.weight"};
  for (const std::string layer : {"model.layers.0.", "model.layers.1."}) {
    for (const char* name : {"attn_norm.weight", "attn.A_log", "attn.dt_bias", "attn.D", "attn.decay",
                             "attn.o_norm.weight", "mlp_norm.weight"}) {
      expected.insert(layer + name);
    }
  }
  EXPECT_EQ(without, expected);
}

TEST(AdamW, LeavesAParameterWithoutGradientAlone) {
  const NamedParameter used = parameter("used", {3, 3}, 1);
  NamedParameter unused = parameter("unused", {3, 3}, 2);
  unused.tensor.mutable_grad() = at::Tensor();
  const at::Tensor before = unused.tensor.detach().clone();
  AdamW optimizer({used, unused}, kOptions);
  set_gradient(used, 0);
  optimizer.step(0.1);
  EXPECT_TRUE(at::equal(unused.tensor, before));
}

TEST(AdamW, ContinuesFromASavedStateBitForBit) {
  const NamedParameter a = parameter("p", {4, 9}, 1), b = parameter("p", {4, 9}, 1);
  AdamW straight({a}, kOptions), first({b}, kOptions), second({b}, kOptions);
  for (int t = 0; t < 8; ++t) {
    set_gradient(a, t);
    set_gradient(b, t);
    straight.step(0.01);
    if (t == 3) {
      first.step(0.01);
      second.load_state(first.state());
    } else {
      (t < 3 ? first : second).step(0.01);
    }
  }
  EXPECT_EQ(second.num_steps(), 8);
  EXPECT_TRUE(at::equal(a.tensor, b.tensor));
}

TEST(AdamW, RefusesAForeignState) {
  const NamedParameter p = parameter("p", {4, 9}, 1), q = parameter("p", {9, 4}, 1);
  AdamW optimizer({p}, kOptions);
  EXPECT_THROW(optimizer.load_state(AdamW({q}, kOptions).state()), Error);
  EXPECT_THROW(optimizer.load_state({}), Error);
  auto state = optimizer.state();
  state["exp_avg.q"] = at::zeros({1});
  EXPECT_THROW(optimizer.load_state(state), Error);
}

TEST(ClipGradientNorm, ScalesAllGradientsTogether) {
  const NamedParameter a = parameter("a", {1, 1}, 1), b = parameter("b", {1}, 2);
  a.tensor.grad().fill_(3);
  b.tensor.grad().fill_(4);
  EXPECT_DOUBLE_EQ(clip_gradient_norm({a, b}, 10.0), 5.0);
  EXPECT_EQ(a.tensor.grad().item<float>(), 3.0f);
  EXPECT_DOUBLE_EQ(clip_gradient_norm({a, b}, 1.0), 5.0);
  EXPECT_NEAR(a.tensor.grad().item<float>(), 0.6f, 1e-7);
  EXPECT_NEAR(b.tensor.grad().item<float>(), 0.8f, 1e-7);
}

TEST(ClipGradientNorm, ReportsANormThatIsNotFinite) {
  const NamedParameter a = parameter("a", {2}, 1);
  a.tensor.grad().fill_(INFINITY);
  EXPECT_FALSE(std::isfinite(clip_gradient_norm({a}, 1.0)));
}

}  // namespace
}  // namespace comba::training
