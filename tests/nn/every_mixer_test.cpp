// Every mixer against its equations in double, token by token, and the laws that every mixer obeys.

#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/utils.h>

#include "mixer_cases.h"
#include "nn/mixers/attention.h"
#include "support/tensor_compare.h"

namespace comba::nn {
namespace {

using test::close;

constexpr int64_t B = 2, T = 75, D = kWidth;

class EveryMixer : public testing::TestWithParam<MixerCase> {
 protected:
  EveryMixer() : mixer_(GetParam().make()) {
    randomise(*mixer_);
    torch::manual_seed(12);
  }

  std::shared_ptr<Mixer> mixer_;
};

INSTANTIATE_TEST_SUITE_P(Mixers, EveryMixer, testing::ValuesIn(mixer_cases()),
                         [](const auto& info) { return info.param.name; });

TEST_P(EveryMixer, AgreesWithItsEquations) {
  if (!GetParam().equations) GTEST_SKIP() << "mixers_test.cpp has the equations of Comba and Gated DeltaNet";
  reference::Parameters wide;
  for (const auto& parameter : mixer_->named_parameters()) {
    wide.insert(parameter.key(), parameter.value().detach().to(at::kDouble).requires_grad_(true));
  }
  const at::Tensor x = at::randn({B, T, D}).requires_grad_(true);
  const at::Tensor wide_x = x.detach().to(at::kDouble).requires_grad_(true);
  const at::Tensor y = mixer_->forward(x, {}, nullptr), expected = GetParam().equations(wide, wide_x);
  EXPECT_TRUE(close(y, expected, 1e-5, "y"));
  const at::Tensor dy = at::randn_like(y);
  y.backward(dy);
  expected.backward(dy.to(at::kDouble));
  EXPECT_TRUE(close(x.grad(), wide_x.grad(), 1e-4, "dx"));
  for (const auto& parameter : mixer_->named_parameters()) {
    ASSERT_TRUE(parameter.value().grad().defined()) << parameter.key();
    EXPECT_TRUE(close(parameter.value().grad(), wide[parameter.key()].grad(), 1e-3, "gradient of " + parameter.key()));
  }
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

TEST_P(EveryMixer, ReadsAStreamInAnyParts) {
  const torch::NoGradGuard no_grad;
  const at::Tensor x = at::randn({B, T, D});
  const at::Tensor whole = mixer_->forward(x, {}, nullptr);
  const std::vector<int64_t> one_by_one(T, 1);
  for (const auto& lengths : {one_by_one, {T}, {40, 35}, {1, 30, 3, 41}}) {
    EXPECT_TRUE(close(in_parts(*mixer_, x, lengths), whole, 1e-5, "y in parts"));
  }
}

TEST_P(EveryMixer, ReadsAStreamInPartsWithGradients) {
  const at::Tensor x = at::randn({B, T, D});
  const at::Tensor y = in_parts(*mixer_, x, {40, 35});
  EXPECT_TRUE(close(y, mixer_->forward(x, {}, nullptr), 1e-5, "y in parts"));
  y.sum().backward();  // nothing that backward needs was overwritten
  for (const at::Tensor& parameter : mixer_->parameters()) EXPECT_TRUE(parameter.grad().isfinite().all().item<bool>());
}

TEST_P(EveryMixer, KeepsPackedSequencesApart) {
  const at::Tensor x = at::randn({1, T, D}).requires_grad_(true);
  const at::Tensor cu_seqlens = torch::tensor({0, 15, 15, 17, static_cast<int>(T)}, at::kInt);
  std::vector<at::Tensor> separate;
  for (const at::Tensor& sequence : x.split_with_sizes({15, 0, 2, T - 17}, 1)) {
    if (sequence.size(1) > 0) separate.push_back(mixer_->forward(sequence, {}, nullptr));
  }
  const at::Tensor packed = mixer_->forward(x, {.cu_seqlens = cu_seqlens}, nullptr), expected = at::cat(separate, 1);
  EXPECT_TRUE(close(packed, expected, 1e-5, "y"));
  const at::Tensor dy = at::randn_like(packed);
  EXPECT_TRUE(close(torch::autograd::grad({packed}, {x}, {dy})[0], torch::autograd::grad({expected}, {x}, {dy})[0],
                    1e-4, "dx"));
}

TEST_P(EveryMixer, SeesNoLaterToken) {
  const torch::NoGradGuard no_grad;
  const at::Tensor x = at::randn({B, T, D});
  const at::Tensor y = mixer_->forward(x, {}, nullptr);
  for (int64_t t : {0, 1, 30, 63, 64, 74}) {
    at::Tensor changed = x.clone();
    changed.select(1, t).normal_();
    const at::Tensor z = mixer_->forward(changed, {}, nullptr);
    EXPECT_TRUE(at::equal(z.narrow(1, 0, t), y.narrow(1, 0, t))) << "token " << t;
    EXPECT_FALSE(at::equal(z.select(1, t), y.select(1, t))) << "token " << t;
  }
}

TEST_P(EveryMixer, ComputesInSixteenBits) {
  const at::Tensor x = at::randn({B, T, D}).to(at::kBFloat16);
  const at::Tensor y = mixer_->forward(x, {}, nullptr);
  EXPECT_EQ(y.scalar_type(), at::kBFloat16);
  // A handful of roundings to 8 bits in a row.
  EXPECT_TRUE(close(y, mixer_->forward(x.to(at::kFloat), {}, nullptr), 3e-2, "y"));
  y.sum().backward();
  for (const auto& parameter : mixer_->named_parameters()) {
    EXPECT_EQ(parameter.value().grad().scalar_type(), at::kFloat) << parameter.key();
  }
}

TEST_P(EveryMixer, SaysHowManyBytesItsStateHas) {
  const torch::NoGradGuard no_grad;
  LayerState state = mixer_->initial_state(1);
  mixer_->forward(at::randn({1, T, D}), {}, &state);
  const MixerFacts facts = mixer_->facts(T);
  EXPECT_EQ(facts.state_bytes, state_bytes(state));
  EXPECT_FALSE(facts.rule.empty());
  EXPECT_GT(facts.rule_flops, 0);
  EXPECT_GT(linear_flops(*mixer_), 0);
  EXPECT_LE(linear_flops(*mixer_), 2.0 * static_cast<double>(num_parameters(*mixer_)));
}

TEST(Attention, AWindowForgets) {
  const torch::NoGradGuard no_grad;
  const auto mixer = mixer_cases()[1].make();
  randomise(*mixer);
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
