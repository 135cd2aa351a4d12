#include "training/optimizer.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "comba/error.h"
#include "training/flat_parameters.h"
#include "training/optimizer_state.h"

namespace comba::training {
namespace {

constexpr AdamWOptions kOptions = {.beta1 = 0.9, .beta2 = 0.95, .epsilon = 1e-6, .weight_decay = 0.1};

/// Weights with values that repeat from run to run.
FlatPiece piece(std::int64_t size, bool weight_decay, int seed) {
  return {at::arange(size, at::kFloat).add(seed).sin(), at::zeros({size}), weight_decay};
}

void set_gradient(const FlatPiece& piece, int step) {
  piece.gradient.copy_(at::arange(piece.gradient.numel(), at::kFloat).mul(0.7).add(step * 1.3).cos().mul(0.5));
}

void make_step(AdamW& optimizer, double learning_rate, double divisor = 1, bool skip = false) {
  optimizer.step(at::full({}, learning_rate, at::kDouble), at::full({}, divisor), at::full({}, skip ? 1.0 : 0.0));
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

void expect_follows_formula(bool weight_decay, double divisor) {
  // A piece of the other kind before and behind it must not disturb.
  const FlatPiece p = piece(35, weight_decay, 1);
  AdamW optimizer({piece(3, !weight_decay, 5), p, piece(4, !weight_decay, 6)}, kOptions);
  std::vector<ReferenceWeight> reference;
  for (std::int64_t i = 0; i < 35; ++i) reference.push_back({p.value[i].item<double>()});
  for (int t = 1; t <= 25; ++t) {
    const double lr = 0.01 * t;
    set_gradient(p, t);
    for (std::size_t i = 0; i < reference.size(); ++i) {
      const auto g = p.gradient[static_cast<std::int64_t>(i)].item<double>() / divisor;
      reference[i].step(g, lr, t, weight_decay ? kOptions.weight_decay : 0.0);
    }
    make_step(optimizer, lr, divisor);
  }
  for (std::size_t i = 0; i < reference.size(); ++i) {
    // 25 updates of at most 0.25, each rounded to fp32 a few times.
    EXPECT_NEAR(p.value[static_cast<std::int64_t>(i)].item<double>(), reference[i].w, 25 * 4 * 6e-8);
  }
}

TEST(AdamW, FollowsItsFormulaWithWeightDecay) { expect_follows_formula(true, 1); }

TEST(AdamW, FollowsItsFormulaWithoutWeightDecay) { expect_follows_formula(false, 1); }

TEST(AdamW, DividesTheGradients) { expect_follows_formula(true, 4); }

TEST(AdamW, SkipsAStep) {
  const FlatPiece p = piece(9, true, 1);
  AdamW optimizer({p}, kOptions);
  set_gradient(p, 0);
  make_step(optimizer, 0.1);
  const at::Tensor value = p.value.clone(), moment = optimizer.exp_avg().clone();
  p.gradient.fill_(NAN);
  make_step(optimizer, 0.1, NAN, /*skip=*/true);
  EXPECT_TRUE(at::equal(p.value, value));
  EXPECT_TRUE(at::equal(optimizer.exp_avg(), moment));
  EXPECT_EQ(optimizer.num_steps().item<float>(), 1.0f);
}

/// Two weights of a model, and their optimizer.
struct Small {
  explicit Small(at::IntArrayRef sizes)
      : parameters({{"p", at::ones(sizes).requires_grad_()}, {"q", at::ones({5}).requires_grad_()}},
                   distributed::single_process()),
        optimizer(parameters.own(), kOptions) {}

  void step(int t) {
    for (const FlatPiece& piece : parameters.own()) set_gradient(piece, t);
    make_step(optimizer, 0.01);
  }

  FlatParameters parameters;
  AdamW optimizer;
};

TEST(OptimizerState, ContinuesBitForBit) {
  Small straight({4, 9}), first({4, 9});
  for (int t = 0; t < 4; ++t) {
    straight.step(t);
    first.step(t);
  }
  Small second({4, 9});
  const at::NoGradGuard no_grad;
  for (std::size_t i = 0; i < 2; ++i) {
    at::Tensor(second.parameters.parameters()[i].tensor).copy_(first.parameters.parameters()[i].tensor);
  }
  const models::NamedTensors state = gather_state(first.parameters, first.optimizer);
  EXPECT_EQ(state.size(), 5u);
  EXPECT_EQ(state.at("exp_avg_sq.p").sizes(), at::IntArrayRef({4, 9}));
  EXPECT_EQ(state.at("num_steps").item<std::int64_t>(), 4);
  load_state(state, second.parameters, second.optimizer);
  for (int t = 4; t < 8; ++t) {
    straight.step(t);
    second.step(t);
  }
  for (std::size_t i = 0; i < 2; ++i) {
    EXPECT_TRUE(at::equal(straight.parameters.parameters()[i].tensor, second.parameters.parameters()[i].tensor));
  }
}

TEST(OptimizerState, RefusesAForeignOne) {
  Small p({4, 9}), other({9, 4});
  EXPECT_THROW(load_state(gather_state(other.parameters, other.optimizer), p.parameters, p.optimizer), Error);
  EXPECT_THROW(load_state({}, p.parameters, p.optimizer), Error);
  models::NamedTensors state = gather_state(p.parameters, p.optimizer);
  state["exp_avg.r"] = at::zeros({1});
  EXPECT_THROW(load_state(state, p.parameters, p.optimizer), Error);
}

}  // namespace
}  // namespace comba::training
