#include "nn/int8_linear.h"

#include <gmock/gmock.h>
#include <torch/utils.h>

#include <limits>

#include "comba/error.h"
#include "nn/linear.h"

namespace comba::nn {
namespace {

using testing::HasSubstr;
using testing::ThrowsMessage;

at::Tensor random_weight(int64_t out, int64_t in) {
  torch::manual_seed(1);
  return at::randn({out, in}) * at::linspace(0.01, 3, out).unsqueeze(1);
}

TEST(RoundedToInt8, IsWithinHalfAScaleOfEachWeight) {
  at::Tensor weight = random_weight(37, 65);
  weight[5].zero_();
  weight[6].fill_(-1e-30);
  const auto [values, scales] = rounded_to_int8(weight);
  EXPECT_EQ(values.scalar_type(), at::kChar);
  const at::Tensor error = (values.to(at::kFloat) * scales.unsqueeze(1) - weight).abs();
  EXPECT_TRUE((error <= scales.unsqueeze(1) * 0.5 * (1 + 1e-5)).all().item<bool>());
  EXPECT_GT(error.max().item<float>(), 0);
  EXPECT_EQ(values[5].abs().max().item<int>(), 0);
  EXPECT_TRUE((values.abs().amax(1) >= 126).logical_or(at::arange(37) == 5).all().item<bool>());
}

TEST(RoundedToInt8, HasScalesThatBf16Holds) {
  const at::Tensor scales = rounded_to_int8(random_weight(200, 20)).second;
  EXPECT_TRUE(at::equal(scales.to(at::kBFloat16).to(at::kFloat), scales));
}

TEST(RoundedToInt8, RefusesWhatIsNotFinite) {
  at::Tensor weight = random_weight(4, 4);
  weight[2][1] = std::numeric_limits<float>::infinity();
  EXPECT_THAT([&] { rounded_to_int8(weight); }, ThrowsMessage<Error>(HasSubstr("must be finite; got")));
}

// Few rows: x and y are rounded to bf16 (2^-9 each), what is summed is exact but for fp32. Many rows: fp32.
TEST(Int8Linear, IsTheProductWithTheRoundedWeight) {
  const auto [values, scales] = rounded_to_int8(random_weight(48, 96));
  const at::Tensor rounded = values.to(at::kDouble) * scales.to(at::kDouble).unsqueeze(1);
  for (const int64_t rows : {1, 5, 16, 17, 64}) {
    torch::manual_seed(rows);
    const at::Tensor x = at::randn({rows, 96});
    const at::Tensor expected = at::linear(x.to(at::kDouble), rounded);
    const at::Tensor terms = at::linear(x.to(at::kDouble).abs(), rounded.abs());
    const double relative = rows > 16 ? 96 * 0x1p-24 : 0x1p-9 + 96 * 0x1p-24;
    const at::Tensor bound = terms * relative + expected.abs() * (rows > 16 ? 0x1p-23 : 0x1p-8);
    const at::Tensor y = int8_linear(x.view({rows, 1, 96}), values, scales);
    EXPECT_EQ(y.scalar_type(), at::kFloat);
    EXPECT_EQ(y.sizes(), (std::vector<int64_t>{rows, 1, 48}));
    const at::Tensor error = (y.view({rows, 48}).to(at::kDouble) - expected).abs();
    EXPECT_TRUE((error <= bound).all().item<bool>()) << rows << " rows: " << (error / bound).max().item<double>();
  }
}

// LibTorch's product would read past the end of such rows.
TEST(Int8Linear, TakesRowsOfAnyLength) {
  for (const int64_t in : {1, 8, 20, 33}) {
    const auto [values, scales] = rounded_to_int8(random_weight(7, in));
    // The memory behind the last row is poisoned.
    const at::Tensor padded = at::full({7 * in + 64}, 127, at::kChar);
    const at::Tensor rows = padded.narrow(0, 0, 7 * in).view({7, in});
    rows.copy_(values);
    const at::Tensor x = at::randn({1, in});
    const at::Tensor expected = at::linear(x, values.to(at::kFloat) * scales.unsqueeze(1));
    EXPECT_LE((int8_linear(x, rows, scales) - expected).abs().max().item<float>(),
              1e-5 * expected.abs().max().item<float>() * in);
  }
}

TEST(Int8Linear, OfALayerKeepsItsBias) {
  Linear layer(32, 16, at::kFloat, /*with_bias=*/true);
  {
    const at::NoGradGuard no_grad;
    for (const at::Tensor& parameter : layer.parameters()) parameter.normal_();
  }
  const at::NoGradGuard no_grad;
  const at::Tensor x = at::randn({20, 32}), before = layer.forward(x);
  layer.round_to_int8();
  EXPECT_EQ(layer.weight().scalar_type(), at::kChar);
  EXPECT_EQ(layer.options().dtype(), at::kFloat);
  const at::Tensor after = layer.forward(x);
  EXPECT_FALSE(at::equal(before, after));
  EXPECT_LT((after - before).abs().max().item<float>(), 0.2);  // 32 terms, each off by up to 3.5 / 254 x
}

}  // namespace
}  // namespace comba::nn
