#include "ablation/heldout_text.h"

#include <gmock/gmock.h>

#include <cmath>
#include <fstream>

#include "base/message.h"
#include "data/pack.h"
#include "support/temporary_directory.h"
#include "support/tiny_run.h"

namespace comba::ablation {
namespace {

using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

/// One text for both splits; the last twentieth is held out.
class OneText {
 public:
  explicit OneText(const std::string& text) {
    std::ofstream(directory_.path() / "text") << text;
    data::pack({.inputs = {directory_.path() / "text"},
                .output = directory_.path() / "packed",
                .holdout = data::Holdout::tail});
  }
  data::TokenDataset open(data::Split split) const {
    return data::TokenDataset::open(directory_.path() / "packed", split);
  }

 private:
  comba::testing::TemporaryDirectory directory_;
};

TEST(HeldoutText, MarksWhatTheContextHolds) {
  // Held out: "abcXabcYab"; training knows none of these pairs.
  const OneText text(std::string(190, '-') + "abcXabcYab");
  const auto heldout = text.open(data::Split::heldout), train = text.open(data::Split::train);
  ASSERT_EQ(heldout.num_bytes(), 10);
  const HeldoutText windows(heldout, train, 10, {.windows = 5, .recall_length = 2}, c10::kCPU);
  ASSERT_EQ(windows.num_windows(), 1);
  const at::Tensor labels = windows.recalled_labels()[0];  // of BOS a b c X a b c Y a
  const std::int64_t no = data::kIgnoredLabel;
  const std::vector<std::int64_t> expected = {no, no, no, no, no, 'b', 'c', no, no, 'b'};
  EXPECT_TRUE(at::equal(labels, at::tensor(expected, at::kLong)));
}

TEST(HeldoutText, LeavesOutWhatIsCommon) {
  // 60,000 tokens of training, so once is rare and "ab", which comes all the time, is not.
  std::string common;
  while (common.size() < 60'000) common += "ab";
  const std::string tail = "ababZQabZQ";
  const OneText text(common + std::string(common.size() / 19 - tail.size(), 'a') + tail);
  const auto heldout = text.open(data::Split::heldout), train = text.open(data::Split::train);
  const HeldoutText windows(heldout, train, heldout.num_tokens() - 1, {.windows = 1, .recall_length = 2}, c10::kCPU);
  const at::Tensor recalled = windows.recalled_labels().masked_select(windows.recalled_labels() >= 0);
  EXPECT_EQ(recalled.eq('b').sum().item<int>(), 0);
  EXPECT_EQ(recalled.eq('Q').sum().item<int>(), 1);
}

TEST(HeldoutText, ScoresAsTheModelDoes) {
  const comba::testing::TinyDataset data;
  const auto heldout = data.open(data::Split::heldout), train = data.open(data::Split::train);
  models::CausalLM model(comba::testing::tiny_model_config());
  model.initialize(3);
  const HeldoutText windows(heldout, train, 40, {.windows = 7, .batch_size = 3, .recall_length = 4}, c10::kCPU);
  const HeldoutScore score = windows.score(model, {});
  EXPECT_EQ(score.tokens, windows.num_windows() * 40);
  EXPECT_EQ(score.recalled_tokens, (windows.recalled_labels() >= 0).sum().item<std::int64_t>());
  EXPECT_NEAR(score.loss(), std::log(264.0), 0.1);  // untrained
  const HeldoutText one_by_one(heldout, train, 40, {.windows = 7, .batch_size = 1, .recall_length = 4}, c10::kCPU);
  EXPECT_NEAR(score.nats, one_by_one.score(model, {}).nats, 1e-3);
}

TEST(HeldoutText, NeedsAWindow) {
  const comba::testing::TinyDataset data;
  const auto heldout = data.open(data::Split::heldout), train = data.open(data::Split::train);
  EXPECT_THAT([&] { HeldoutText(heldout, train, 100'000, {}, c10::kCPU); },
              ThrowsMessage<Error>(HasSubstr("must be longer than a window of 100000 tokens")));
}

}  // namespace
}  // namespace comba::ablation
