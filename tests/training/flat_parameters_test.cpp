#include "training/flat_parameters.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>
#include <string>
#include <vector>

#include "support/tiny_run.h"

namespace comba::training {
namespace {

std::vector<NamedParameter> parameters_of(const models::CausalLM& model) {
  std::vector<NamedParameter> parameters;
  for (const auto& item : model.named_parameters()) parameters.push_back({item.key(), item.value()});
  return parameters;
}

class FlatParametersTest : public ::testing::Test {
 protected:
  FlatParametersTest() : model_(testing::tiny_model_config()) {
    model_.initialize(1);
    for (const auto& item : model_.named_parameters()) before_[item.key()] = item.value().detach().clone();
  }

  at::Tensor parameter(const std::string& name) { return model_.named_parameters()[name]; }

  models::CausalLM model_;
  models::NamedTensors before_;
};

TEST_F(FlatParametersTest, DecaysMatricesAndNothingElse) {
  std::set<std::string> without;
  for (const NamedParameter& parameter : parameters_of(model_)) {
    if (!parameter.weight_decay) without.insert(parameter.name);
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

TEST_F(FlatParametersTest, KeepsValuesAndLaysNeighboursSideBySide) {
  const FlatParameters flat(parameters_of(model_), distributed::single_process(), {.linear_dtype = at::kBFloat16});
  for (const auto& item : model_.named_parameters()) EXPECT_TRUE(at::equal(item.value(), before_.at(item.key())));
  ASSERT_EQ(flat.own().size(), 2u);  // decayed and not
  EXPECT_TRUE(flat.own()[0].weight_decay);
  EXPECT_FALSE(flat.own()[1].weight_decay);
  const auto& parameters = flat.parameters();
  for (std::size_t i = 1; i < parameters.size(); ++i) {
    const at::Tensor &left = parameters[i - 1].tensor, &right = parameters[i].tensor;
    EXPECT_EQ(left.const_data_ptr<float>() + left.numel(), right.const_data_ptr<float>()) << parameters[i].name;
    EXPECT_GE(parameters[i - 1].is_linear, parameters[i].is_linear) << parameters[i].name;
  }
}

TEST_F(FlatParametersTest, ShowsRoundedCopiesOfLinearMapsOnly) {
  FlatParameters flat(parameters_of(model_), distributed::single_process(), {.linear_dtype = at::kBFloat16});
  {
    const FlatParameters::CopiesInUse copies(flat);
    for (const NamedParameter& p : flat.parameters()) {
      EXPECT_EQ(p.tensor.scalar_type(), p.is_linear ? at::kBFloat16 : at::kFloat) << p.name;
      EXPECT_TRUE(at::equal(p.tensor, before_.at(p.name).to(p.tensor.scalar_type()))) << p.name;
    }
    EXPECT_EQ(parameter("model.layers.1.attn.b_proj.weight").scalar_type(), at::kBFloat16);
    EXPECT_EQ(parameter("model.embeddings.weight").scalar_type(), at::kFloat);
    EXPECT_EQ(parameter("model.layers.0.attn.q_conv1d.weight").scalar_type(), at::kFloat);
  }
  for (const auto& item : model_.named_parameters()) EXPECT_TRUE(at::equal(item.value(), before_.at(item.key())));
}

TEST_F(FlatParametersTest, CopiesFollowTheValues) {
  FlatParameters flat(parameters_of(model_), distributed::single_process(), {.linear_dtype = at::kBFloat16});
  flat.own()[0].value.fill_(0.1f);
  flat.gather_values();
  const FlatParameters::CopiesInUse copies(flat);
  const at::Tensor weight = parameter("model.layers.0.attn.q_proj.weight");
  EXPECT_TRUE(at::equal(weight, at::full_like(weight, 0.1)));
}

TEST_F(FlatParametersTest, CollectsGradientsAndNamesTheFirstThatIsNotFinite) {
  FlatParameters flat(parameters_of(model_), distributed::single_process());
  const at::Tensor norm = parameter("model.norm.weight"), up = parameter("model.layers.1.mlp.up_proj.weight");
  const auto collect = [&](double value, bool replace) {
    flat.begin_pass(/*first=*/replace, /*last=*/true);
    norm.mutable_grad() = at::full_like(norm, value);
    up.mutable_grad() = at::full_like(up, 2 * value);
    flat.end_pass();
    EXPECT_FALSE(norm.grad().defined());
  };
  const auto expected = [&](double value) {
    return value * value * static_cast<double>(norm.numel() + 4 * up.numel());
  };
  collect(5, true);
  collect(3, true);
  EXPECT_NEAR(flat.square_of_gradients().item<double>(), expected(3), 1e-5 * expected(3));
  collect(1, false);
  EXPECT_NEAR(flat.square_of_gradients().item<double>(), expected(4), 1e-5 * expected(4));
  EXPECT_EQ(flat.non_finite_gradient(), "");
  norm.mutable_grad() = at::full_like(norm, NAN);
  flat.begin_pass(/*first=*/false, /*last=*/true);
  flat.end_pass();
  EXPECT_EQ(flat.non_finite_gradient(), "model.norm.weight");
  flat.begin_pass(/*first=*/true, /*last=*/true);
  flat.end_pass();
  EXPECT_EQ(flat.square_of_gradients().item<double>(), 0.0);
}

}  // namespace
}  // namespace comba::training
