// Every layer with an own kernel, against LibTorch's operations in double; and the laws of layers over tokens.

#include <gmock/gmock.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <functional>

#include "comba/error.h"
#include "nn/linear.h"
#include "nn/rms_norm.h"
#include "nn/rotary_embedding.h"
#include "nn/short_convolution.h"
#include "nn/swiglu.h"
#include "support/tensor_compare.h"

namespace comba::nn {
namespace {

using test::close;
using testing::HasSubstr;
using testing::ThrowsMessage;
using Tensors = std::vector<at::Tensor>;
using Function = std::function<at::Tensor(const Tensors&)>;

// fp32 sums of up to a few hundred terms.
constexpr double kTolerance = 1e-6;

/// fp32 result and gradients of `function` against those of `reference` in double.
void expect_agreement(const Tensors& inputs, const Function& function, const Function& reference) {
  Tensors x, wide;
  for (const at::Tensor& input : inputs) {
    x.push_back(input.clone().requires_grad_(true));
    wide.push_back(input.to(at::kDouble).requires_grad_(true));
  }
  const at::Tensor y = function(x), expected = reference(wide);
  EXPECT_TRUE(close(y, expected, kTolerance, "y"));
  const at::Tensor dy = at::randn_like(y);
  const Tensors gradients = torch::autograd::grad({y}, x, {dy});
  const Tensors expected_gradients = torch::autograd::grad({expected}, wide, {dy.to(at::kDouble)});
  for (size_t i = 0; i < x.size(); ++i) {
    EXPECT_TRUE(close(gradients[i], expected_gradients[i], kTolerance, "gradient of input " + std::to_string(i)));
  }
}

class EveryWidth : public testing::TestWithParam<int64_t> {};
// Below, at and beyond the lanes of a vector; and the sizes of real layers.
INSTANTIATE_TEST_SUITE_P(Layers, EveryWidth, testing::Values(3, 8, 16, 37, 64, 256));

TEST_P(EveryWidth, RmsNorm) {
  torch::manual_seed(1);
  // 150 rows: more than one slab, and a last one that is not full.
  expect_agreement(
      {at::randn({3, 50, GetParam()}), at::randn({GetParam()})},
      [](const Tensors& x) { return rms_norm(x[0], x[1], 1e-6); },
      [](const Tensors& x) { return x[0] / (x[0].square().mean(-1, true) + 1e-6).sqrt() * x[1]; });
}

TEST_P(EveryWidth, GatedRmsNorm) {
  torch::manual_seed(2);
  for (GateFunction f : {GateFunction::sigmoid, GateFunction::silu}) {
    expect_agreement(
        {at::randn({3, 50, GetParam()}), at::randn({GetParam()}), 4 * at::randn({3, 50, GetParam()})},
        [f](const Tensors& x) { return rms_norm(x[0], x[1], 1e-5, x[2], f); },
        [f](const Tensors& x) {
          const at::Tensor opening = f == GateFunction::sigmoid ? at::sigmoid(x[2]) : at::silu(x[2]);
          return x[0] / (x[0].square().mean(-1, true) + 1e-5).sqrt() * x[1] * opening;
        });
  }
}

TEST_P(EveryWidth, Swiglu) {
  torch::manual_seed(3);
  expect_agreement(
      {4 * at::randn({3, 50, GetParam()}), at::randn({3, 50, GetParam()})},
      [](const Tensors& x) { return swiglu(x[0], x[1]); }, [](const Tensors& x) { return at::silu(x[0]) * x[1]; });
}

TEST_P(EveryWidth, ShortConvolution) {
  torch::manual_seed(4);
  const int64_t channels = GetParam();
  // 300 tokens: pieces of 128 and a rest.
  expect_agreement(
      {at::randn({2, 300, channels}), at::randn({channels, 1, 4})},
      [](const Tensors& x) { return short_convolution(x[0], x[1], {}, {}); },
      [channels](const Tensors& x) {
        const at::Tensor channels_first = x[0].transpose(1, 2);
        const at::Tensor z = at::conv1d(channels_first, x[1], {}, 1, /*padding=*/3, 1, channels);
        return at::silu(z.narrow(2, 0, 300).transpose(1, 2));
      });
}

TEST(Layers, LinearTakesBothLibraries) {
  torch::manual_seed(5);
  for (const auto& [rows, in, out] : {std::tuple<int64_t, int64_t, int64_t>{3, 24, 40}, {200, 24, 40}, {200, 24, 2}}) {
    expect_agreement(
        {at::randn({2, rows, in}), at::randn({out, in}), at::randn({out})},
        [](const Tensors& x) { return nn::linear(x[0], x[1], x[2]); },
        [](const Tensors& x) { return at::matmul(x[0], x[1].t()) + x[2]; });
  }
}

TEST(Layers, LinearHasASecondDerivative) {
  torch::manual_seed(6);
  const at::Tensor x = at::randn({100, 20}).requires_grad_(true), weight = at::randn({30, 20}).requires_grad_(true);
  const auto dx =
      torch::autograd::grad({nn::linear(x, weight).square().sum()}, {x}, {}, true, /*create_graph=*/true)[0];
  const at::Tensor computed = torch::autograd::grad({dx.square().sum()}, {weight})[0];
  const at::Tensor w = weight.detach().to(at::kDouble).requires_grad_(true);
  const at::Tensor reference = (2 * x.detach().to(at::kDouble).matmul(w.t()).matmul(w)).square().sum();
  EXPECT_TRUE(close(computed, torch::autograd::grad({reference}, {w})[0], kTolerance, "second derivative"));
}

TEST(Layers, KernelsRefuseASecondDerivative) {
  const at::Tensor x = at::randn({2, 8, 16}).requires_grad_(true);
  const std::map<std::string, Function> layers = {
      {"rms_norm", [](const Tensors& t) { return rms_norm(t[0], at::ones({16}), 1e-6); }},
      {"swiglu", [](const Tensors& t) { return swiglu(t[0], t[0]); }},
      {"short_convolution",
       [](const Tensors& t) {
         return short_convolution(t[0], at::ones({16, 1, 4}), {}, {});
       }},
  };
  for (const auto& [name, layer] : layers) {
    EXPECT_THAT(([&] { torch::autograd::grad({layer({x}).sum()}, {x}, {}, true, /*create_graph=*/true); }),
                ThrowsMessage<Error>(HasSubstr("[" + name + "] a second derivative")));
  }
}

TEST(Layers, NanStaysNanAndInfinityStaysOut) {
  const float nan = std::numeric_limits<float>::quiet_NaN(), inf = std::numeric_limits<float>::infinity();
  const at::Tensor gate = torch::tensor({nan, inf, -inf, 0.0f});
  const at::Tensor y = rms_norm(at::ones({1, 4}), at::ones({4}), 0, gate.view({1, 4}));
  EXPECT_TRUE(y[0][0].isnan().item<bool>());
  EXPECT_TRUE(close(y.narrow(1, 1, 3), torch::tensor({{1.0f, 0.0f, 0.5f}}), kTolerance, "y"));
  const at::Tensor z = swiglu(gate.narrow(0, 0, 2), at::ones({2}));
  EXPECT_TRUE(z[0].isnan().item<bool>());
  EXPECT_EQ(z[1].item<float>(), inf);
}

TEST(Layers, SixteenBitsAndFp32Agree) {
  torch::manual_seed(7);
  const at::Tensor x = at::randn({2, 9, 32}), weight = at::rand({32}) + 0.5, filter = at::randn({32, 1, 4});
  const auto half = [](const at::Tensor& t) { return t.to(at::kBFloat16); };
  const auto exact = [](const at::Tensor& t) { return t.to(at::kBFloat16).to(at::kFloat); };
  EXPECT_TRUE(close(rms_norm(half(x), half(weight), 1e-6), rms_norm(exact(x), exact(weight), 1e-6), 5e-3, "rms_norm"));
  EXPECT_EQ(rms_norm(half(x), half(weight), 1e-6).scalar_type(), at::kBFloat16);
  EXPECT_TRUE(close(short_convolution(half(x), half(filter), {}, {}),
                    short_convolution(exact(x), exact(filter), {}, {}), 2e-2, "short_convolution"));
}

TEST(ShortConvolution, PackedSequencesAreSeparate) {
  torch::manual_seed(8);
  for (at::ScalarType dtype : {at::kFloat, at::kDouble}) {  // the kernel and the definition
    const at::Tensor x = at::randn({1, 300, 20}, dtype).requires_grad_(true);
    const at::Tensor weight = at::randn({20, 1, 4}, dtype).requires_grad_(true);
    const at::Tensor cu_seqlens = torch::tensor({0, 1, 3, 3, 140, 300}, at::kInt);
    const at::Tensor packed = short_convolution(x, weight, {}, cu_seqlens);
    Tensors separate;
    for (int64_t n = 0; n < 5; ++n) {
      const int64_t begin = cu_seqlens[n].item<int64_t>(), end = cu_seqlens[n + 1].item<int64_t>();
      separate.push_back(short_convolution(x.narrow(1, begin, end - begin), weight, {}, {}));
    }
    const at::Tensor expected = at::cat(separate, 1), dy = at::randn_like(packed);
    EXPECT_TRUE(close(packed, expected, kTolerance, "y"));
    const auto computed = torch::autograd::grad({packed}, {x, weight}, {dy});
    const auto reference = torch::autograd::grad({expected}, {x, weight}, {dy});
    EXPECT_TRUE(close(computed[0], reference[0], kTolerance, "dx"));
    EXPECT_TRUE(close(computed[1], reference[1], kTolerance, "dweight"));
  }
}

TEST(ShortConvolution, TheTailCarriesAStreamOn) {
  torch::manual_seed(9);
  for (int64_t width : {4, 3}) {  // the kernel and the definition
    ShortConvolution layer(20, width, {});
    const torch::NoGradGuard no_grad;
    layer.parameters()[0].normal_();
    const at::Tensor x = at::randn({2, 11, 20});
    const at::Tensor whole = layer.forward(x, {}, nullptr);
    for (const std::vector<int64_t>& lengths : {std::vector<int64_t>{1, 1, 1, 8}, {2, 9}, {11}}) {
      at::Tensor tail = layer.initial_tail(2);
      Tensors parts;
      for (const at::Tensor& part : x.split_with_sizes(lengths, 1)) parts.push_back(layer.forward(part, {}, &tail));
      EXPECT_TRUE(close(at::cat(parts, 1), whole, kTolerance, "y"));
      EXPECT_TRUE(at::equal(tail, x.narrow(1, 11 - (width - 1), width - 1)));
    }
  }
}

TEST(ShortConvolution, RefusesBordersThatAreNone) {
  const at::Tensor x = at::randn({1, 10, 4}), weight = at::randn({4, 1, 4});
  for (const auto& borders :
       {torch::tensor({0, 4}), torch::tensor({0, 7, 5, 10}), torch::tensor({1, 10}), torch::tensor({0, 11})}) {
    EXPECT_THAT([&] { short_convolution(x, weight, {}, borders); },
                ThrowsMessage<Error>(HasSubstr("must ascend from 0 to T = 10")));
  }
}

TEST(RotaryEmbedding, ScoresDependOnDistanceAlone) {
  torch::manual_seed(10);
  const at::Tensor q = at::randn({1, 1, 1, 8}, at::kDouble), k = at::randn({1, 1, 1, 8}, at::kDouble);
  const auto score = [&](int64_t at_q, int64_t at_k) {
    const auto turned = [](const at::Tensor& x, int64_t position) {
      return rotary_embedding(x, at::full({1}, position, at::kLong), 10000);
    };
    return (turned(q, at_q) * turned(k, at_k)).sum().item<double>();
  };
  EXPECT_NEAR(score(7, 3), score(104, 100), 1e-12);
  EXPECT_NE(score(7, 3), score(7, 4));
  EXPECT_NEAR(score(0, 0), (q * k).sum().item<double>(), 1e-12);
}

}  // namespace
}  // namespace comba::nn
