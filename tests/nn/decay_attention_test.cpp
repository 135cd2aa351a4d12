// The chunk form of linear attention with decays, and of the diagonal-plus-low-rank rule, where decays are hard.

#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/utils.h>

#include <limits>

#include "nn/mixers/decay_attention.h"
#include "nn/mixers/dplr_attention.h"
#include "support/tensor_compare.h"

namespace comba::nn {
namespace {

using test::close;
using Tensors = std::vector<at::Tensor>;

constexpr int64_t B = 2, H = 2, K = 5, V = 3;

at::Tensor random_log_decays(DecayOf decay_of, int64_t num_tokens, double mean) {
  const at::Tensor g = -mean * at::rand({B, num_tokens, H, decay_of == DecayOf::value ? V : K}).log().neg();
  return decay_of == DecayOf::head ? g.select(-1, 0) : g;
}

/// Token by token, in double.
Tensors recurrence(const Tensors& x, DecayOf decay_of, double scale) {
  at::Tensor state = x[4];
  Tensors outputs;
  for (int64_t t = 0; t < x[0].size(1); ++t) {
    const auto token = [&](size_t which) { return x[which].select(1, t); };
    if (decay_of == DecayOf::head) state = state * token(3).exp().unsqueeze(-1).unsqueeze(-1);
    if (decay_of == DecayOf::key) state = state * token(3).exp().unsqueeze(-1);
    if (decay_of == DecayOf::value) state = state * token(3).exp().unsqueeze(-2);
    state = state + token(1).unsqueeze(-1) * token(2).unsqueeze(-2);
    outputs.push_back(scale * (state * token(0).unsqueeze(-1)).sum(2));
  }
  return {at::stack(outputs, 1), state};
}

struct Case {
  DecayOf decay_of;
  double mean_log_decay;
};

class DecayAttention : public testing::TestWithParam<Case> {};

INSTANTIATE_TEST_SUITE_P(Decays, DecayAttention,
                         testing::Values(Case{DecayOf::nothing, 0}, Case{DecayOf::head, 0.01}, Case{DecayOf::head, 1},
                                         Case{DecayOf::head, 20}, Case{DecayOf::key, 0.01}, Case{DecayOf::key, 1},
                                         Case{DecayOf::key, 20}, Case{DecayOf::value, 0.01}, Case{DecayOf::value, 1},
                                         Case{DecayOf::value, 20}));

TEST_P(DecayAttention, IsTheRecurrenceWithItsGradients) {
  torch::manual_seed(1);
  for (int64_t num_tokens : {1, 2, 3, 16, 63, 64, 65, 130}) {
    const auto [decay_of, mean] = GetParam();
    const auto leaf = [](const at::Tensor& x) { return x.clone().requires_grad_(true); };
    const Tensors x = {leaf(at::randn({B, num_tokens, H, K})), leaf(at::randn({B, num_tokens, H, K})),
                       leaf(at::randn({B, num_tokens, H, V})), leaf(random_log_decays(decay_of, num_tokens, mean)),
                       leaf(at::randn({B, H, K, V}))};
    Tensors wide;
    for (const at::Tensor& input : x) wide.push_back(leaf(input.detach().to(at::kDouble)));
    const DecayAttentionOutput output =
        decay_attention({.q = x[0], .k = x[1], .v = x[2], .g = x[3], .decay_of = decay_of, .scale = 0.4}, x[4]);
    const Tensors expected = recurrence(wide, decay_of, 0.4);
    // Log decays are summed up over a chunk: 64 * 20 rounds to 24 bits with an error of 8e-5, the worst of all
    // elements.
    EXPECT_TRUE(close(output.o, expected[0], 1e-5, "o"));
    EXPECT_TRUE(close(output.final_state, expected[1], 1e-5, "final state"));
    const Tensors d = {at::randn_like(output.o), at::randn_like(output.final_state)};
    const Tensors dx = torch::autograd::grad({output.o, output.final_state}, x, d, {}, false, /*allow_unused=*/true);
    const Tensors dwide = torch::autograd::grad(expected, wide, {d[0].to(at::kDouble), d[1].to(at::kDouble)}, {}, false,
                                                /*allow_unused=*/true);
    const char* names[] = {"dq", "dk", "dv", "dg", "d initial state"};
    for (size_t i = 0; i < x.size(); ++i) {
      ASSERT_EQ(dx[i].defined(), dwide[i].defined()) << names[i];
      if (!dx[i].defined()) continue;
      EXPECT_TRUE(close(dx[i], dwide[i], i == 3 ? 1e-4 : 1e-5, names[i])) << num_tokens;
    }
  }
}

TEST(DecayAttention, AFactorOfZeroForgetsAll) {
  torch::manual_seed(2);
  for (DecayOf decay_of : {DecayOf::head, DecayOf::key, DecayOf::value}) {
    const at::Tensor q = at::randn({B, 70, H, K}), k = at::randn({B, 70, H, K}), v = at::randn({B, 70, H, V});
    at::Tensor g = random_log_decays(decay_of, 70, 0.1);
    g.select(1, 40).fill_(-std::numeric_limits<float>::infinity());
    const auto attend = [&](int64_t begin, int64_t length) {
      const auto part = [&](const at::Tensor& x) { return x.narrow(1, begin, length); };
      return decay_attention({.q = part(q), .k = part(k), .v = part(v), .g = part(g), .decay_of = decay_of}).o;
    };
    EXPECT_TRUE(close(attend(0, 70).narrow(1, 40, 30), attend(40, 30), 1e-4, "after it"));
  }
}

TEST(DPLRAttention, IsTheRecurrenceUnderEveryDecay) {
  torch::manual_seed(3);
  for (double mean : {0.01, 0.6, 20.0}) {
    for (int64_t num_tokens : {1, 5, 64, 100}) {
      const auto unit = [&] {
        const at::Tensor x = at::randn({B, num_tokens, H, K});
        return x / x.norm(2, {-1}, true);
      };
      const at::Tensor a = unit();
      const DPLRInputs x{.q = at::randn({B, num_tokens, H, K}),
                         .k = at::randn({B, num_tokens, H, K}),
                         .v = at::randn({B, num_tokens, H, V}),
                         .a = -a,
                         .b = a * at::rand({B, num_tokens, H, K}),
                         .g = random_log_decays(DecayOf::key, num_tokens, mean)};
      const at::Tensor initial = at::randn({B, H, K, V});
      at::Tensor state = initial.to(at::kDouble);
      Tensors outputs;
      for (int64_t t = 0; t < num_tokens; ++t) {
        const auto column = [&](const at::Tensor& y) { return y.select(1, t).to(at::kDouble).unsqueeze(-1); };
        const at::Tensor seen = (state * column(x.a)).sum(2, true);  // [B, H, 1, V]
        state = state * column(x.g).exp() + column(x.b) * seen + column(x.k) * column(x.v).transpose(-1, -2);
        outputs.push_back((state * column(x.q)).sum(2));
      }
      const DPLROutput output = dplr_attention(x, initial);
      EXPECT_TRUE(close(output.o, at::stack(outputs, 1), 1e-5, "o")) << mean << ", " << num_tokens;
      EXPECT_TRUE(close(output.final_state, state, 1e-5, "final state")) << mean << ", " << num_tokens;
    }
  }
}

}  // namespace
}  // namespace comba::nn
