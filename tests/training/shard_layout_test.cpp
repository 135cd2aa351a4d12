#include "training/shard_layout.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>
#include <vector>

namespace comba::training {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

TEST(ShardLayout, CutsTensorsWhereAShardEnds) {
  const ShardLayout layout({5, 2, 4}, 3);  // 11 elements
  EXPECT_EQ(layout.shard_size(), 4);
  EXPECT_THAT(layout.slices(0), ElementsAre(ShardSlice{.tensor = 0, .first = 0, .size = 4, .offset = 0}));
  EXPECT_THAT(layout.slices(1), ElementsAre(ShardSlice{.tensor = 0, .first = 4, .size = 1, .offset = 0},
                                            ShardSlice{.tensor = 1, .first = 0, .size = 2, .offset = 1},
                                            ShardSlice{.tensor = 2, .first = 0, .size = 1, .offset = 3}));
  EXPECT_THAT(layout.slices(2), ElementsAre(ShardSlice{.tensor = 2, .first = 1, .size = 3, .offset = 0}));
  EXPECT_EQ(layout.offset(2), 7);
}

TEST(ShardLayout, LeavesShardsEmptyWhenThereIsTooLittle) {
  const ShardLayout layout({2}, 4);
  EXPECT_EQ(layout.shard_size(), 1);
  EXPECT_EQ(layout.slices(1).size(), 1u);
  EXPECT_THAT(layout.slices(2), IsEmpty());
  EXPECT_THAT(layout.slices(3), IsEmpty());
}

TEST(ShardLayout, OwnsEveryElementOnceInOrder) {
  for (const std::vector<std::int64_t>& sizes :
       {std::vector<std::int64_t>{1}, {7, 1, 1, 30}, {0, 3, 0, 8}, {64, 64}, {1, 1, 1, 1, 1}}) {
    for (int num_shards = 1; num_shards <= 9; ++num_shards) {
      const ShardLayout layout(sizes, num_shards);
      std::int64_t next = 0;
      for (int shard = 0; shard < num_shards; ++shard) {
        std::set<std::size_t> tensors;
        for (const ShardSlice& slice : layout.slices(shard)) {
          EXPECT_EQ(layout.offset(slice.tensor) + slice.first, next);
          EXPECT_EQ(shard * layout.shard_size() + slice.offset, next);
          EXPECT_LE(slice.offset + slice.size, layout.shard_size());
          EXPECT_TRUE(tensors.insert(slice.tensor).second) << "two slices of one tensor";
          next += slice.size;
        }
      }
      std::int64_t total = 0;
      for (const std::int64_t size : sizes) total += size;
      EXPECT_EQ(next, total);
      EXPECT_LT(num_shards * layout.shard_size() - total, num_shards);
    }
  }
}

}  // namespace
}  // namespace comba::training
