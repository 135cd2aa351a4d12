#include "tasks/numpy_random.h"

#include <gmock/gmock.h>

namespace comba::tasks {
namespace {

using ::testing::ElementsAre;

// numpy 2.4, one generator throughout:
//     r = numpy.random.RandomState(2463534242)
//     r.randint(0, 10, 5), r.permutation(7), r.random_sample(2), r.randint(2**31, 2**32, 3)
//     [r.choice(4, 4, replace=False, p=[.5, .25, .125, .125]) for _ in range(3)]
//     r.choice(9, 3, replace=False), r.randint(5, 6), r.randint(0, 100)
// tests/apps/test_mqar.py compares whole data sets with the numpy that is installed.
TEST(NumpyRandom, DrawsWhatNumpyDraws) {
  NumpyRandom random(2463534242);
  std::vector<std::int64_t> numbers;
  for (int i = 0; i < 5; ++i) numbers.push_back(random.randint(0, 10));
  EXPECT_THAT(numbers, ElementsAre(2, 9, 7, 3, 6));
  EXPECT_THAT(random.permutation(7), ElementsAre(3, 2, 1, 6, 4, 5, 0));
  EXPECT_EQ(random.random_sample(), 0.24113671487066024);
  EXPECT_EQ(random.random_sample(), 0.8467010515904112);
  EXPECT_EQ(random.randint(std::int64_t{1} << 31, std::int64_t{1} << 32), 2447179228);
  EXPECT_EQ(random.randint(std::int64_t{1} << 31, std::int64_t{1} << 32), 3524335891);
  EXPECT_EQ(random.randint(std::int64_t{1} << 31, std::int64_t{1} << 32), 2685278144);
  constexpr double kWeights[] = {0.5, 0.25, 0.125, 0.125};
  EXPECT_THAT(random.choice(kWeights, 4), ElementsAre(3, 0, 1, 2));
  EXPECT_THAT(random.choice(kWeights, 4), ElementsAre(1, 0, 3, 2));
  EXPECT_THAT(random.choice(kWeights, 4), ElementsAre(0, 2, 3, 1));
  EXPECT_THAT(random.choice(9, 3), ElementsAre(1, 7, 6));
  EXPECT_EQ(random.randint(5, 6), 5);  // without a draw
  EXPECT_EQ(random.randint(0, 100), 77);
}

}  // namespace
}  // namespace comba::tasks
