#include "models/read_tokens.h"

#include <gtest/gtest.h>

#include <numeric>
#include <vector>

#include "comba/error.h"
#include "support/tiny_run.h"

namespace comba::models {
namespace {

class ReadTokens : public ::testing::Test {
 protected:
  ReadTokens() : ids_(150) {
    model_.initialize(1);
    std::iota(ids_.begin(), ids_.end(), 0);
  }

  CausalLM model_{testing::tiny_model_config()};
  std::vector<std::int64_t> ids_;
};

TEST_F(ReadTokens, GivesTheLastRowOfForwardAndItsState) {
  const at::NoGradGuard no_grad;
  ModelState whole = model_.initial_state(1);
  const at::Tensor expected = model_.forward(at::tensor(ids_, at::kLong).unsqueeze(0), &whole)[0][-1];
  for (const std::int64_t chunk_length : {150, 1000, 64, 7}) {
    ModelState state = model_.initial_state(1);
    std::vector<std::int64_t> read;
    const at::Tensor logits =
        read_tokens(model_, ids_, state, chunk_length, [&](std::int64_t tokens) { read.push_back(tokens); });
    ASSERT_EQ(logits.sizes(), expected.sizes());
    EXPECT_TRUE(at::allclose(logits, expected, 1e-4, 1e-5)) << "chunks of " << chunk_length;
    EXPECT_EQ(state.position, whole.position);
    for (std::size_t layer = 0; layer < whole.layers.size(); ++layer) {
      EXPECT_TRUE(at::allclose(state.layers[layer].tensors.back(), whole.layers[layer].tensors.back(), 1e-4, 1e-5));
    }
    EXPECT_EQ(static_cast<std::int64_t>(read.size()), (150 + chunk_length - 1) / chunk_length);
    EXPECT_EQ(read.back(), 150);
  }
}

TEST_F(ReadTokens, RefusesNothingToReadAndUnknownIds) {
  ModelState state = model_.initial_state(1);
  EXPECT_THROW(read_tokens(model_, {}, state, 8), Error);
  EXPECT_THROW(read_tokens(model_, ids_, state, 0), Error);
  ids_[100] = 264;
  EXPECT_THROW(read_tokens(model_, ids_, state, 8), Error);
}

}  // namespace
}  // namespace comba::models
