#include "nn/recompute.h"

#include <gmock/gmock.h>
#include <torch/csrc/autograd/autograd.h>

#include "comba/error.h"

namespace comba::nn {
namespace {

using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

class Recompute : public ::testing::Test {
 protected:
  /// tanh(x W)^2, and a look at what stays alive in between.
  at::Tensor function(const at::Tensor& x) {
    ++num_calls_;
    const at::Tensor inside = at::tanh(at::matmul(x, weight_));
    inside_ = inside.getIntrusivePtr();
    return inside.square();
  }
  at::Tensor recomputed(const at::Tensor& x) {
    return recompute_in_backward([this](const at::Tensor& input) { return function(input); }, x);
  }
  void forget_gradients() { x_.mutable_grad() = weight_.mutable_grad() = at::Tensor(); }
  bool inside_is_alive() const { return !inside_.expired(); }

  at::Tensor x_ = at::randn({5, 8}).requires_grad_();
  at::Tensor weight_ = at::randn({8, 8}).requires_grad_();
  c10::weak_intrusive_ptr<c10::TensorImpl, c10::UndefinedTensorImpl> inside_{x_.getIntrusivePtr()};
  int num_calls_ = 0;
};

TEST_F(Recompute, GradientsHaveTheSameBits) {
  const at::Tensor y = function(x_);
  y.sum().backward();
  const at::Tensor dx = x_.grad().clone(), dweight = weight_.grad().clone();
  forget_gradients();
  const at::Tensor again = recomputed(x_);
  EXPECT_TRUE(at::equal(y, again));
  again.sum().backward();
  EXPECT_TRUE(at::equal(dx, x_.grad()));
  EXPECT_TRUE(at::equal(dweight, weight_.grad()));
  EXPECT_EQ(num_calls_, 3);
}

TEST_F(Recompute, KeepsNothingOfTheInside) {
  const at::Tensor kept = function(x_);
  EXPECT_TRUE(inside_is_alive());
  const at::Tensor y = recomputed(x_);
  EXPECT_FALSE(inside_is_alive());
  y.sum().backward();
  EXPECT_FALSE(inside_is_alive());
}

TEST_F(Recompute, GradientsAddUpOverCallsInARow) {
  function(function(x_)).sum().backward();
  const at::Tensor dx = x_.grad().clone(), dweight = weight_.grad().clone();
  forget_gradients();
  recomputed(recomputed(x_)).sum().backward();
  EXPECT_TRUE(at::equal(dx, x_.grad()));
  EXPECT_TRUE(at::allclose(dweight, weight_.grad(), 1e-6, 1e-6));  // the two terms come in another order
}

TEST_F(Recompute, WithoutGradientsItIsTheFunction) {
  const at::NoGradGuard no_grad;
  EXPECT_FALSE(recomputed(x_).requires_grad());
  EXPECT_EQ(num_calls_, 1);
}

TEST_F(Recompute, RefusesASecondDerivative) {
  const at::Tensor y = recomputed(x_).sum();
  EXPECT_THAT([&] { torch::autograd::grad({y}, {x_}, {}, /*retain_graph=*/true, /*create_graph=*/true); },
              ThrowsMessage<Error>(HasSubstr("second derivative")));
}

}  // namespace
}  // namespace comba::nn
