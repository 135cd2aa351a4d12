#include "tasks/recall_model.h"

#include <gtest/gtest.h>

#include "support/tensor_compare.h"
#include "tasks/mixer_spec.h"

namespace comba::tasks {
namespace {

constexpr ModelSizes kSizes = {.vocab = 20, .hidden_size = 16, .num_layers = 2, .num_heads = 2};

std::shared_ptr<RecallModel> model_of(const std::string& mixer) {
  auto model = std::make_shared<RecallModel>(mixer_config(mixer, kSizes));
  model->initialize(1);
  model->eval();
  return model;
}

at::Tensor all_positions(const at::Tensor& inputs) {
  return at::arange(inputs.size(1), at::kLong).expand_as(inputs).contiguous();
}

at::Tensor some_tokens() { return (at::arange(22, at::kLong) * 7 % 20).view({2, 11}); }

/// Layer 0 of the model by its definition, as plain sums.
at::Tensor gated_convolution(const at::Tensor& x, torch::nn::Module& model) {
  const auto p = model.named_parameters();
  const at::Tensor filter = p["layers.0.mixer.convolution.weight"], bias = p["layers.0.mixer.convolution.bias"];
  at::Tensor y = at::zeros_like(x);
  for (int64_t t = 0; t < x.size(1); ++t) {
    at::Tensor sum = bias;
    for (int64_t back = 0; back < 3 && back <= t; ++back)
      sum = sum + x.select(1, t - back) * filter.select(2, 2 - back).squeeze(1);
    const at::Tensor gate =
        at::linear(x.select(1, t), p["layers.0.mixer.projection.weight"], p["layers.0.mixer.projection.bias"]);
    y.select(1, t) = sum * gate + x.select(1, t);
  }
  return y;
}

TEST(RecallModel, IsItsDefinition) {
  const torch::NoGradGuard no_grad;
  const auto model =
      std::make_shared<RecallModel>(mixer_config("softmax", {.vocab = 20, .hidden_size = 16, .num_layers = 1}));
  model->initialize(3);
  for (auto& parameter : model->named_parameters()) parameter.value().add_(0.1 * at::randn_like(parameter.value()));
  model->eval();
  const auto p = model->named_parameters();
  const auto norm = [&](const std::string& name, const at::Tensor& x) {
    return at::layer_norm(x, {16}, p[name + ".weight"], p[name + ".bias"], 1e-5);
  };
  const at::Tensor inputs = some_tokens();
  at::Tensor x = p["embedding"].index({inputs});
  x = x + gated_convolution(norm("layers.0.mixer_norm", x), *model);
  x = x + norm("layers.0.state_norm", x);
  const at::Tensor logits = at::matmul(norm("final_norm", x), p["embedding"].t());
  EXPECT_TRUE(test::close(model->forward(inputs, all_positions(inputs)), logits, 1e-5, ""));
}

TEST(RecallModel, TellsTheLabelledPositionsOnly) {
  const torch::NoGradGuard no_grad;
  const auto model = model_of("comba");
  const at::Tensor inputs = some_tokens();
  const at::Tensor positions = at::tensor({3, 10, 0, 10, 1, 2}, at::kLong).view({2, 3});
  const at::Tensor all = model->forward(inputs, all_positions(inputs));
  const at::Tensor told = model->forward(inputs, positions);
  EXPECT_EQ(told.sizes(), (std::vector<int64_t>{2, 3, 20}));
  for (int64_t row = 0; row < 2; ++row) {
    for (int64_t i = 0; i < 3; ++i) {
      EXPECT_TRUE(test::close(told[row][i], all[row][positions[row][i].item<int64_t>()], 1e-6, ""));
    }
  }
}

TEST(RecallModel, LooksBackOnly) {
  const torch::NoGradGuard no_grad;
  const at::Tensor inputs = some_tokens();
  at::Tensor changed = inputs.clone();
  changed.select(1, 6).fill_(19);
  for (const char* mixer : {"comba", "gated_deltanet", "softmax"}) {
    const auto model = model_of(mixer);
    const at::Tensor before = model->forward(inputs, all_positions(inputs));
    const at::Tensor after = model->forward(changed, all_positions(inputs));
    EXPECT_TRUE(at::equal(before.narrow(1, 0, 6), after.narrow(1, 0, 6))) << mixer;
    EXPECT_FALSE(at::allclose(before.select(1, 10), after.select(1, 10))) << mixer;
  }
}

// Without positions the mixer sees a set: what stands far back may change places.
TEST(RecallModel, AttentionKnowsNoPositions) {
  const torch::NoGradGuard no_grad;
  const auto model = model_of("softmax");
  const at::Tensor inputs = at::tensor({5, 5, 5, 1, 1, 1, 5, 5, 5, 2, 2, 2, 5, 5, 5}, at::kLong).view({1, -1});
  const at::Tensor changed = at::tensor({5, 5, 5, 2, 2, 2, 5, 5, 5, 1, 1, 1, 5, 5, 5}, at::kLong).view({1, -1});
  const at::Tensor last = at::full({1, 1}, 14, at::kLong);
  EXPECT_TRUE(test::close(model->forward(inputs, last), model->forward(changed, last), 1e-5, ""));
}

TEST(RecallModel, DropsOutInTrainingOnly) {
  const torch::NoGradGuard no_grad;
  const auto model = model_of("comba");
  const at::Tensor inputs = some_tokens(), positions = all_positions(some_tokens());
  EXPECT_TRUE(at::equal(model->forward(inputs, positions), model->forward(inputs, positions)));
  model->train();
  torch::manual_seed(1);
  const at::Tensor first = model->forward(inputs, positions);
  EXPECT_FALSE(at::allclose(first, model->forward(inputs, positions)));
  torch::manual_seed(1);
  EXPECT_TRUE(at::equal(first, model->forward(inputs, positions)));
}

TEST(RecallModel, CountsTheBytesOfItsState) {
  // Two heads of 8 x 8, and the last three inputs of three convolutions of 16 channels.
  EXPECT_EQ(model_of("comba")->state_bytes(100), 4 * (2 * 8 * 8 + 3 * 3 * 16));
  EXPECT_EQ(model_of("comba")->state_bytes(7), model_of("comba")->state_bytes(100));
  EXPECT_EQ(model_of("softmax")->state_bytes(100), 4 * 2 * 100 * 16);
}

TEST(RecallModel, BeginsAsItsDocumentationSays) {
  RecallModel model(mixer_config("comba", {.vocab = 300, .hidden_size = 64}));
  model.initialize(1);
  const auto p = model.named_parameters();
  const auto deviation = [&](const char* name) { return p[name].detach().std().item<double>(); };
  EXPECT_NEAR(deviation("embedding"), 0.02, 0.001);
  EXPECT_NEAR(deviation("layers.1.mixer.q_proj.weight"), 0.02, 0.001);
  EXPECT_NEAR(deviation("layers.1.mixer.q_conv1d.weight"), 0.5 / std::sqrt(3), 0.03);
  EXPECT_NEAR(deviation("layers.0.mixer.convolution.weight"), 1.0 / 3, 0.03);
  EXPECT_LE(p["layers.0.mixer.convolution.bias"].abs().max().item<double>(), 1 / std::sqrt(3));
  EXPECT_EQ(p["layers.0.mixer.projection.bias"].abs().max().item<double>(), 0);
  EXPECT_EQ(p["layers.1.state_norm.weight"].min().item<double>(), 1);
  EXPECT_EQ(p["final_norm.bias"].abs().max().item<double>(), 0);

  RecallModel other(mixer_config("comba", {.vocab = 300, .hidden_size = 64}));
  other.initialize(1);
  for (const auto& item : other.named_parameters()) EXPECT_TRUE(at::equal(item.value(), p[item.key()])) << item.key();
}

}  // namespace
}  // namespace comba::tasks
