#include "generation/gpu/step_model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "comba/error.h"
#include "generation/model_for_test.h"

namespace comba::generation {
namespace {

TEST(StepModel, PacksAMatrixInTheOrderOfTheLanes) {
  const std::int64_t rows = 40, columns = 70;
  const at::Tensor weight = at::arange(1, rows * columns + 1, at::kFloat).view({rows, columns});
  const at::Tensor order = packed(weight);
  ASSERT_EQ(order.sizes(), (std::vector<std::int64_t>{3, 3, 2, 8, 4, 8}));
  const auto at = [&](std::int64_t row, std::int64_t column) {
    return order[row / 16][column / 32][row / 8 % 2][row % 8][column / 8 % 4][column % 8].item<float>();
  };
  for (const std::int64_t row : {0, 7, 8, 15, 16, 39}) {
    for (const std::int64_t column : {0, 7, 8, 31, 32, 69}) {
      EXPECT_EQ(at(row, column), weight[row][column].item<float>()) << row << ' ' << column;
    }
  }
  EXPECT_EQ(order.sum().item<float>(), weight.sum().item<float>()) << "what pads is zero";
}

TEST(StepModel, CutsAStateIntoSlicesOfColumns) {
  const std::int64_t K = 6, V = 48;
  const at::Tensor state = at::arange(2 * K * V, at::kFloat).view({1, 2, K, V});
  const at::Tensor slices = state_slices(state);
  ASSERT_EQ(slices.sizes(), (std::vector<std::int64_t>{1, 2, 3, K, 16}));
  EXPECT_TRUE(slices.is_contiguous());
  for (const std::int64_t column : {0, 15, 16, 47}) {
    EXPECT_TRUE(slices[0][1][column / 16].select(1, column % 16).equal(state[0][1].select(1, column))) << column;
  }
  EXPECT_TRUE(state_of_slices(slices).equal(state));
}

/// What a warp reads together, 32 channels of 8 rows, is one piece; every element has a place of its own.
TEST(StepModel, ActivationsAreInPiecesOfEightRows) {
  constexpr int kRows = 24, kStride = 96;
  std::vector<int> taken(kRows * kStride, 0);
  for (int row = 0; row < kRows; ++row) {
    for (int channel = 0; channel < kStride; ++channel) {
      const unsigned place = model_step::place_in_rows(row, channel, kStride);
      ASSERT_LT(place, taken.size());
      EXPECT_EQ(taken[place]++, 0) << row << ' ' << channel;
      EXPECT_EQ(place / 256, static_cast<unsigned>(row / 8 * 3 + channel / 32));
      EXPECT_EQ(place, model_step::place_of_row(row / 8, row % 8, kStride) +
                           static_cast<unsigned>(channel / 32 * model_step::kBlockStep + channel % 32));
    }
  }
}

TEST(StepModel, SaysWhatStandsAgainstAModel) {
  models::CausalLM model = decided_model(testing::tiny_model_config());
  EXPECT_THAT(step_refusal(model), ::testing::HasSubstr("on a GPU"));
  try {
    StepModel(model, 1, 264, at::kFloat);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::unsupported);
    EXPECT_THAT(error.what(), ::testing::HasSubstr("it is on cpu"));
  }
  EXPECT_THAT(model_step::refusal({.K = 512, .V = 64}), ::testing::HasSubstr("K = 512"));
  EXPECT_THAT(model_step::refusal({.K = 64, .V = 24}), ::testing::HasSubstr("got 24"));
  EXPECT_THAT(model_step::refusal({.K = 64, .V = 64, .W = 3}), ::testing::HasSubstr("got 3"));
  EXPECT_EQ(model_step::refusal({.K = 256, .V = 256, .W = 4}), "");
}

}  // namespace
}  // namespace comba::generation
