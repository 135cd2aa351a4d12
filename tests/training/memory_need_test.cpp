#include "training/memory_need.h"

#include <gmock/gmock.h>

namespace comba::training {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr std::int64_t kGiB = 1 << 30;

TEST(MemoryNeed, CountsWhatLasts) {
  EXPECT_EQ(lasting_bytes({.dtype = "fp32"}, 1000, 1), 20'000);
  EXPECT_EQ(lasting_bytes({.dtype = "bf16"}, 1000, 1), 20'000);
  EXPECT_EQ(lasting_bytes({.dtype = "bf16"}, 1000, 4), 14'000);
}

TEST(MemoryNeed, SaysWhatUsesItAndWhatNeedsLess) {
  const TrainConfig config = {.batch_size = 64, .micro_batch_size = 16, .context_length = 2048, .dtype = "bf16"};
  const std::string text = out_of_memory_message(config, kGiB, 1, {.total = 80 * kGiB, .free = 0});
  EXPECT_THAT(text, HasSubstr("got 80.0 GiB"));
  EXPECT_THAT(text, HasSubstr("take 20.0 GiB"));
  EXPECT_THAT(text, HasSubstr("activations of 16 sequences of 2048 tokens"));
  EXPECT_THAT(text, HasSubstr("train.micro_batch_size = 8, train.recompute_blocks = true"));
  EXPECT_THAT(text, Not(HasSubstr("train.dtype")));
}

TEST(MemoryNeed, AdvisesOnlyWhatIsLeftToDo) {
  const TrainConfig config = {.batch_size = 4, .micro_batch_size = 1, .dtype = "fp32", .recompute_blocks = true};
  const std::string text = out_of_memory_message(config, kGiB, 4, {.total = kGiB, .free = 0});
  EXPECT_THAT(text, Not(HasSubstr("micro_batch_size =")));
  EXPECT_THAT(text, Not(HasSubstr("recompute_blocks")));
  EXPECT_THAT(text, HasSubstr("train.dtype = bf16"));
}

}  // namespace
}  // namespace comba::training
