#include <ATen/Parallel.h>
#include <gmock/gmock.h>
#include <torch/utils.h>

#include <map>

#include "models/causal_lm.h"

/// Ways to compute a loss, on every kind of model: what each may change and what it must not.
namespace comba::models {
namespace {

class PassOptionsOf : public ::testing::TestWithParam<const char*> {
 protected:
  PassOptionsOf() {
    model_.initialize(1);
    torch::manual_seed(2);
    ids_ = at::randint(model_.config().vocab_size, {2, 70}, at::kLong);
  }

  struct Result {
    double loss = 0;
    std::map<std::string, at::Tensor> gradients;
  };

  Result run(const PassOptions& pass, bool packed = false) {
    model_.zero_grad();
    const at::Tensor labels = ids_.roll(-1, 1);
    const at::Tensor loss =
        packed ? model_.loss(ids_.view({1, -1}), labels.view({1, -1}), at::tensor({0, 30, 70, 140}, at::kLong), pass)
               : model_.loss(ids_, labels, {}, pass);
    EXPECT_EQ(loss.scalar_type(), at::kFloat);
    loss.backward();
    Result result{.loss = loss.item<double>(), .gradients = {}};
    for (const auto& parameter : model_.named_parameters()) {
      result.gradients[parameter.key()] = parameter.value().grad().clone();
    }
    return result;
  }

  void round_matrices() {
    const at::NoGradGuard no_grad;
    for (at::Tensor& parameter : model_.parameters()) {
      if (parameter.dim() >= 2) parameter.copy_(parameter.to(at::kBFloat16));
    }
  }

  /// Of the gradients, relative to those of `wide`.
  static double distance(const Result& narrow, const Result& wide) {
    double error = 0, size = 0;
    for (const auto& [name, gradient] : wide.gradients) {
      error += (gradient - narrow.gradients.at(name)).square().sum().item<double>();
      size += gradient.square().sum().item<double>();
    }
    return std::sqrt(error / size);
  }

  CausalLM model_{load_model_config(std::filesystem::path(COMBA_SOURCE_DIR) / "configs" / GetParam())};
  at::Tensor ids_;
};

INSTANTIATE_TEST_SUITE_P(Models, PassOptionsOf,
                         ::testing::Values("comba-gsa-tiny.json", "comba-tiny.json", "gdn-tiny.json", "gla-tiny.json",
                                           "gsa-tiny.json", "hgrn2-tiny.json", "hybrid-tiny.json",
                                           "linear-attention-tiny.json", "mamba2-tiny.json", "miras-tiny.json",
                                           "retnet-tiny.json", "rwkv7-tiny.json", "transformer-tiny.json",
                                           "ttt-linear-tiny.json", "ttt-mlp-tiny.json"));

void expect_same_bits(const std::map<std::string, at::Tensor>& a, const std::map<std::string, at::Tensor>& b) {
  for (const auto& [name, gradient] : a) EXPECT_TRUE(at::equal(gradient, b.at(name))) << name;
}

TEST_P(PassOptionsOf, RecomputedBlocksGiveTheSameBits) {
  for (const bool packed : {false, true}) {
    for (const std::optional<at::ScalarType> dtype : {std::optional<at::ScalarType>(), std::optional(at::kBFloat16)}) {
      const Result plain = run({.compute_dtype = dtype}, packed);
      const Result recomputed = run({.compute_dtype = dtype, .recompute_blocks = true}, packed);
      EXPECT_EQ(plain.loss, recomputed.loss);
      expect_same_bits(plain.gradients, recomputed.gradients);
    }
  }
}

TEST_P(PassOptionsOf, Bf16IsNearFp32AndItsGradientsAreFp32) {
  const Result wide = run({}), narrow = run({.compute_dtype = at::kBFloat16});
  EXPECT_NE(wide.loss, narrow.loss) << "nothing was rounded";
  // Each of a handful of roundings in a row has a relative error of at most 2^-9.
  EXPECT_NEAR(wide.loss, narrow.loss, 1.0 / 512);
  for (const auto& [name, gradient] : narrow.gradients) EXPECT_EQ(gradient.scalar_type(), at::kFloat) << name;
  // Where a norm follows sums that nearly cancel, one rounding costs more: that of the weights alone tells how much.
  round_matrices();
  const double of_weights = distance(run({}), wide);
  EXPECT_LT(distance(narrow, wide), std::max(8.0 / 512, 4 * of_weights)) << "rounded weights: " << of_weights;
}

TEST_P(PassOptionsOf, Bf16ChangesNoWeight) {
  for (const auto& parameter : model_.named_parameters()) EXPECT_EQ(parameter.value().scalar_type(), at::kFloat);
  run({.compute_dtype = at::kBFloat16});
  EXPECT_EQ(run({}).loss, run({}).loss);
}

}  // namespace
}  // namespace comba::models
