// Projections, losses and gradients whose tensors share memory, against the same computed one by one.

#include <gmock/gmock.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/types.h>
#include <torch/utils.h>

#include "comba/error.h"
#include "libtorch/columns.h"
#include "nn/joined_linear.h"
#include "nn/linear.h"
#include "nn/linear_cross_entropy.h"
#include "support/tensor_compare.h"

namespace comba::nn {
namespace {

using test::close;
using testing::HasSubstr;
using testing::ThrowsMessage;
using Tensors = std::vector<at::Tensor>;

const std::vector<int64_t> kHeights = {5, 16, 3};

Tensors neighbours(at::ScalarType dtype) {
  Tensors weights = empty_rows(kHeights, {12}, dtype);
  for (at::Tensor& weight : weights) weight.normal_().requires_grad_();
  return weights;
}

Tensors copies_of(const Tensors& tensors) {
  Tensors copies;
  for (const at::Tensor& tensor : tensors)
    copies.push_back(tensor.detach().clone().requires_grad_(tensor.requires_grad()));
  return copies;
}

/// Results and gradients of joined_linear against those of linear() on tensors of their own; `used` outputs only.
void expect_the_same(const at::Tensor& x, const Tensors& weights, const std::vector<size_t>& used, double tolerance) {
  const at::Tensor own_x = x.detach().clone().requires_grad_();
  const Tensors own = copies_of(weights), joined = joined_linear(x, weights);
  Tensors results, expected, cotangents;
  for (const size_t i : used) {
    results.push_back(joined[i]);
    expected.push_back(nn::linear(own_x, own[i]));
    cotangents.push_back(at::randn_like(expected.back()));
    EXPECT_TRUE(close(joined[i], expected.back(), tolerance, "y"));
    EXPECT_EQ(joined[i].scalar_type(), x.scalar_type());
  }
  Tensors leaves = weights, own_leaves = own;
  leaves.push_back(x);
  own_leaves.push_back(own_x);
  const auto gradients = torch::autograd::grad(results, leaves, cotangents, true, false, /*allow_unused=*/true);
  const auto reference = torch::autograd::grad(expected, own_leaves, cotangents, true, false, /*allow_unused=*/true);
  for (size_t i = 0; i < leaves.size(); ++i) {
    const auto or_zero = [&](const at::Tensor& x) { return x.defined() ? x : at::zeros_like(leaves[i]); };
    EXPECT_EQ(or_zero(gradients[i]).scalar_type(), leaves[i].scalar_type());
    EXPECT_TRUE(close(or_zero(gradients[i]), or_zero(reference[i]), tolerance, std::to_string(i)));
  }
}

TEST(JoinedLinear, GivesWhatEachGives) {
  torch::manual_seed(1);
  for (const auto& [of_x, of_weights, tolerance] : {std::tuple{at::kFloat, at::kFloat, 1e-6},
                                                    {at::kDouble, at::kDouble, 1e-12},
                                                    {at::kBFloat16, at::kFloat, 1e-2},
                                                    {at::kBFloat16, at::kBFloat16, 1e-2}}) {
    const Tensors weights = neighbours(of_weights);
    for (const std::vector<size_t>& used : {std::vector<size_t>{0, 1, 2}, {1}, {0, 2}}) {
      expect_the_same(at::randn({2, 9, 12}, of_x).requires_grad_(), weights, used, tolerance);
      expect_the_same(at::randn({2, 9, 12}, of_x).requires_grad_(), copies_of(weights), used, tolerance);
    }
  }
}

TEST(JoinedLinear, OutputsAreColumnsAndGradientsRowsOfOneTensor) {
  const Tensors weights = neighbours(at::kFloat);
  const at::Tensor x = at::randn({4, 7, 12});
  const Tensors y = joined_linear(x, weights);
  EXPECT_EQ(joined_columns(y).sizes(), at::IntArrayRef({4, 7, 24}));
  const auto gradients = torch::autograd::grad({y[0].sum() + y[1].sum() + y[2].sum()}, weights);
  EXPECT_TRUE(joined_rows(gradients).defined());
  EXPECT_FALSE(joined_columns({y[0], y[2]}).defined());
  EXPECT_FALSE(joined_columns({y[1], y[0]}).defined());
  EXPECT_FALSE(joined_rows(copies_of(weights)).defined());
  EXPECT_FALSE(joined_rows({weights[1], weights[0]}).defined());
}

TEST(JoinedLinear, TrainsSomeWeightsOnly) {
  Tensors weights = neighbours(at::kFloat);
  weights[1].requires_grad_(false);
  const at::Tensor x = at::randn({4, 12});
  const Tensors y = joined_linear(x, weights);
  const auto gradients = torch::autograd::grad({y[0].sum() + y[1].sum()}, {weights[0]});
  EXPECT_TRUE(close(gradients[0], x.sum(0).expand({5, 12}), 1e-6, "dweight"));
}

TEST(JoinedLinear, RefusesASecondDerivative) {
  const Tensors weights = neighbours(at::kFloat);
  const at::Tensor x = at::randn({4, 12}).requires_grad_();
  EXPECT_THAT(([&] { torch::autograd::grad({joined_linear(x, weights)[0].sum()}, {x}, {}, true, true); }),
              ThrowsMessage<Error>(HasSubstr("[joined_linear] a second derivative")));
}

TEST(GatherColumns, TakesTheRoomBehindTheFirstOnes) {
  const at::Tensor wide = at::randn({2, 5, 16}), x = wide.narrow(2, 0, 10);
  at::Tensor all = empty_gradient_with_room(x);
  EXPECT_EQ(all.strides(), x.strides());
  all.normal_();
  Tensors gradients = cut_columns(all, {4, 6});
  const at::Tensor others = at::randn({2, 5, 5}), expected = at::cat({all, others, at::zeros({2, 5, 1})}, 2);
  const void* memory = all.data_ptr();
  all.reset();
  gradients.push_back(others);
  gradients.emplace_back();
  const at::Tensor gathered = gather_columns(gradients, {4, 6, 5, 1});
  EXPECT_TRUE(at::equal(gathered, expected));
  EXPECT_EQ(gathered.data_ptr(), memory);
}

TEST(GatherColumns, LeavesMemoryAloneThatSomebodyHolds) {
  const at::Tensor all = at::randn({5, 16}), before = all.clone();
  const Tensors gradients = {all.narrow(1, 0, 4), all.narrow(1, 4, 4), at::randn({5, 2})};
  EXPECT_TRUE(at::equal(gather_columns(gradients, {4, 4, 2}), at::cat(gradients, 1)));
  EXPECT_TRUE(at::equal(all, before));
  EXPECT_EQ(gather_columns({gradients[0], gradients[1]}, {4, 4}).data_ptr(), all.data_ptr());
}

struct LossCase {
  at::ScalarType dtype, weight_dtype;
  double tolerance;
};

TEST(LinearCrossEntropy, BlocksGiveWhatTheWholeGives) {
  torch::manual_seed(2);
  for (const LossCase& c : {LossCase{at::kDouble, at::kDouble, 1e-12},
                            {at::kFloat, at::kFloat, 2e-6},
                            {at::kBFloat16, at::kFloat, 1e-2},
                            {at::kBFloat16, at::kBFloat16, 1e-2}}) {
    const at::Tensor x = at::randn({3, 7, 12}, c.dtype).requires_grad_();
    const at::Tensor weight = at::randn({37, 12}, c.weight_dtype).requires_grad_();
    const at::Tensor targets = at::randint(37, {3, 7}, at::kLong);
    targets.select(1, 2).fill_(-100);
    const at::Tensor wide_x = x.detach().to(at::kDouble).requires_grad_();
    const at::Tensor wide_weight = weight.detach().to(c.dtype).to(at::kDouble).requires_grad_();
    const at::Tensor expected =
        at::cross_entropy_loss(at::linear(wide_x, wide_weight).flatten(0, 1), targets.flatten()) * 0.3;
    const auto reference = torch::autograd::grad({expected}, {wide_x, wide_weight});
    for (const int64_t tokens : {1, 4, 100}) {
      const at::Tensor loss = linear_cross_entropy_in_blocks(x, weight, targets, tokens) * 0.3;
      EXPECT_TRUE(close(loss, expected, c.tolerance, "loss"));
      EXPECT_EQ(loss.scalar_type(), c.dtype == at::kDouble ? at::kDouble : at::kFloat);
      const auto gradients = torch::autograd::grad({loss}, {x, weight});
      EXPECT_TRUE(close(gradients[0], reference[0], c.tolerance, "dx"));
      EXPECT_TRUE(close(gradients[1], reference[1], c.tolerance, "dweight"));
      EXPECT_EQ(gradients[1].scalar_type(), c.weight_dtype);
      const at::NoGradGuard no_grad;
      EXPECT_TRUE(at::equal(linear_cross_entropy_in_blocks(x, weight, targets, tokens) * 0.3, loss));
    }
  }
}

TEST(LinearCrossEntropy, OneBlockOnTheCpuHasTheBitsOfLibTorchsOperations) {
  torch::manual_seed(3);
  const at::Tensor x = at::randn({3, 7, 12}).requires_grad_(), weight = at::randn({37, 12}).requires_grad_();
  const at::Tensor targets = at::randint(37, {3, 7}, at::kLong);
  const at::Tensor expected = at::cross_entropy_loss(nn::linear(x, weight).flatten(0, 1), targets.flatten());
  const at::Tensor loss = linear_cross_entropy(x, weight, targets);
  EXPECT_TRUE(at::equal(loss, expected));
  EXPECT_TRUE(at::equal(torch::autograd::grad({loss}, {weight})[0], torch::autograd::grad({expected}, {weight})[0]));
}

TEST(LinearCrossEntropy, NoTargetsGiveNan) {
  const at::Tensor x = at::randn({4, 12}), weight = at::randn({37, 12}), none = at::full({4}, -100, at::kLong);
  EXPECT_TRUE(linear_cross_entropy(x, weight, none).isnan().item<bool>());
  EXPECT_TRUE(linear_cross_entropy_in_blocks(x, weight, none, 3).isnan().item<bool>());
}

TEST(LinearCrossEntropy, NamesWrongArguments) {
  const at::Tensor x = at::randn({4, 12}), weight = at::randn({37, 12}), targets = at::zeros({4}, at::kLong);
  EXPECT_THAT([&] { linear_cross_entropy_in_blocks(x, weight.t(), targets, 3); },
              ThrowsMessage<Error>(HasSubstr("weight must be [vocab, D] and x [..., D]; got [12, 37] and [4, 12]")));
  EXPECT_THAT([&] { linear_cross_entropy_in_blocks(x, weight, targets.narrow(0, 0, 3), 3); },
              ThrowsMessage<Error>(HasSubstr("targets must be [...] i64 as x is [..., D], [4, 12]; got [3] Long")));
}

}  // namespace
}  // namespace comba::nn
