#include "generation/gpu/slot_table.h"

#include <gtest/gtest.h>

#include "base/random_bits.h"
#include "comba/error.h"
#include "operators/model_step/model_step.h"

namespace comba::generation {
namespace {

using Rows = std::vector<SlotTable::Row>;

TEST(SlotTable, TextsTakeTheLowestFreeSlotAndKeepTheirOrder) {
  SlotTable table(3);
  const auto a = table.join(), b = table.join(), c = table.join();
  EXPECT_TRUE(table.is_full());
  EXPECT_EQ((std::vector{a.slot, b.slot, c.slot}), (std::vector<std::int64_t>{0, 1, 2}));
  table.leave(b.slot);
  EXPECT_FALSE(table.is_full());
  EXPECT_EQ(table.rows(), (Rows{a, c}));
  const auto d = table.join();
  EXPECT_EQ(d.slot, 1);
  EXPECT_EQ(table.rows(), (Rows{a, c, d}));
}

TEST(SlotTable, ATextIsNotTakenForTheOneBeforeItInItsSlot) {
  SlotTable table(1);
  const auto first = table.join();
  EXPECT_TRUE(table.holds(first));
  table.leave(first.slot);
  EXPECT_FALSE(table.holds(first));
  const auto second = table.join();
  EXPECT_EQ(second.slot, first.slot);
  EXPECT_FALSE(table.holds(first));
  EXPECT_TRUE(table.holds(second));
}

TEST(SlotTable, TheVersionChangesWithTheTexts) {
  SlotTable table(2);
  const auto start = table.version();
  const auto row = table.join();
  const auto joined = table.version();
  table.leave(row.slot);
  EXPECT_NE(joined, start);
  EXPECT_NE(table.version(), joined);
}

TEST(SlotTable, RefusesWhatCannotBe) {
  EXPECT_THROW(SlotTable(0), Error);
  SlotTable table(1);
  EXPECT_THROW(table.leave(0), Error);
  table.join();
  EXPECT_THROW(table.join(), Error);
}

TEST(Buckets, AreFewAndHoldTheRows) {
  const auto bucket = [](std::int64_t rows) { return model_step::bucket_of(rows, /*max_rows=*/1000); };
  EXPECT_EQ(bucket(1), 1);
  EXPECT_EQ(bucket(2), 2);
  EXPECT_EQ(bucket(3), 4);
  EXPECT_EQ(bucket(33), 64);
  EXPECT_EQ(bucket(65), 128);
  EXPECT_EQ(bucket(129), 192);
  EXPECT_EQ(bucket(999), 1000) << "no more rows than there is memory for";
  EXPECT_EQ(model_step::bucket_of(7, 8), 8);
}

TEST(RandomBits, AreThoseOfSplitMix64) {
  EXPECT_EQ(random_bits(0, 0), 0xe220a8397b1dcdafu);
  EXPECT_EQ(random_bits(0, 1), 0x6e789e6aa1b965f4u);
  EXPECT_EQ(random_bits(0x9e3779b97f4a7c15u, 0), random_bits(0, 1));
}

}  // namespace
}  // namespace comba::generation
