#include "generation/token_sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

#include "base/random_bits.h"
#include "comba/error.h"

namespace comba::generation {
namespace {

const std::vector<float> kLogits = {0.5f, 2.0f, -1.0f, 2.0f, 1.0f};

std::vector<int> counts(const SamplingOptions& options, int num_draws) {
  TokenSampler sampler(options);
  std::vector<int> counts(kLogits.size(), 0);
  for (int i = 0; i < num_draws; ++i) ++counts[static_cast<std::size_t>(sampler.sample(kLogits))];
  return counts;
}

TEST(TokenSampler, TemperatureZeroTakesTheLikeliestAndTheSmallerIdOfEquals) {
  TokenSampler sampler({.temperature = 0});
  for (int i = 0; i < 10; ++i) EXPECT_EQ(sampler.sample(kLogits), 1);
}

TEST(TokenSampler, DrawsInProportionToTheSoftmax) {
  constexpr int kDraws = 40000;
  for (const double temperature : {0.5, 1.0, 3.0}) {
    double sum = 0;
    for (const float logit : kLogits) sum += std::exp(logit / temperature);
    const std::vector<int> drawn = counts({.temperature = temperature, .seed = 7}, kDraws);
    for (std::size_t i = 0; i < kLogits.size(); ++i) {
      const double p = std::exp(kLogits[i] / temperature) / sum;
      EXPECT_NEAR(drawn[i], kDraws * p, 5 * std::sqrt(kDraws * p * (1 - p)) + 1) << "token " << i;
    }
  }
}

TEST(TokenSampler, TopKKeepsTheKLikeliest) {
  const std::vector<int> drawn = counts({.top_k = 3, .seed = 1}, 2000);
  EXPECT_EQ(drawn[0] + drawn[2], 0);
  EXPECT_GT(drawn[1], 0);
  EXPECT_GT(drawn[3], 0);
  EXPECT_GT(drawn[4], 0);
}

TEST(TokenSampler, TopPKeepsTheFewestThatReachP) {
  // Probabilities .089 .400 .020 .400 .147 over their sum of 1.056: two reach .75, three are needed for .8.
  const std::vector<int> two = counts({.top_p = 0.75, .seed = 1}, 2000),
                         three = counts({.top_p = 0.8, .seed = 1}, 2000);
  EXPECT_EQ(two[0] + two[2] + two[4], 0);
  EXPECT_EQ(three[0] + three[2], 0);
  EXPECT_GT(three[4], 0);
  EXPECT_EQ(counts({.top_p = 1e-9, .seed = 1}, 100)[1], 100);
}

TEST(TokenSampler, MinPKeepsWhatIsNotMuchLessLikelyThanTheLikeliest) {
  // Relative to the likeliest: .223 1 .050 1 .368.
  const std::vector<int> three = counts({.min_p = 0.3, .seed = 1}, 2000),
                         four = counts({.min_p = 0.2, .seed = 1}, 2000);
  EXPECT_EQ(three[0] + three[2], 0);
  EXPECT_GT(three[4], 0);
  EXPECT_EQ(four[2], 0);
  EXPECT_GT(four[0], 0);
  EXPECT_EQ(counts({.temperature = 10, .min_p = 1, .seed = 1}, 100)[4], 0);
  const std::vector<int> hot =
      counts({.temperature = 10, .min_p = 0.3, .seed = 1}, 2000);  // the temperature comes first
  EXPECT_GT(hot[2], 0);
}

TEST(TokenSampler, ThePenaltyLowersRecentTokensOfEitherSign) {
  const std::vector<float> logits = {2.0f, 1.9f, -1.0f, -1.1f};
  const auto likeliest = [&](std::vector<std::int64_t> before, double penalty) {
    TokenSampler sampler({.temperature = 0, .repetition_penalty = penalty, .repetition_window = 2});
    sampler.observe(before);
    return sampler.sample(logits);
  };
  EXPECT_EQ(likeliest({}, 2), 0);
  EXPECT_EQ(likeliest({0}, 2), 1);
  EXPECT_EQ(likeliest({0, 0}, 1.01), 0) << "once, not once a time it was there";
  EXPECT_EQ(likeliest({1}, 0.5), 1);
  EXPECT_EQ(likeliest({0, 3, 3}, 2), 0) << "too long ago";
  EXPECT_EQ(likeliest({9}, 2), 0) << "an id that is not drawn from";

  const std::vector<float> negative = {-1.0f, -1.1f};
  TokenSampler sampler({.temperature = 0, .repetition_penalty = 1.5});
  EXPECT_EQ(sampler.sample(negative), 0);
  EXPECT_EQ(sampler.sample(negative), 1) << "what it drew is recent";
  EXPECT_EQ(sampler.recent(), (std::vector<std::int64_t>{0, 1}));
}

TEST(TokenSampler, TheSeedDecides) {
  TokenSampler a({.seed = 5}), b({.seed = 5}), c({.seed = 6});
  int differences = 0;
  for (int i = 0; i < 100; ++i) {
    const std::int64_t token = a.sample(kLogits);
    EXPECT_EQ(token, b.sample(kLogits));
    differences += token != c.sample(kLogits);
  }
  EXPECT_GT(differences, 10);
}

TEST(TokenSampler, TakesInfiniteLogitsAtTheirWord) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  TokenSampler sampler({});
  for (int i = 0; i < 50; ++i) EXPECT_NE(sampler.sample(std::vector<float>{0, -kInfinity, 0}), 1);
}

/// The definition: all tokens sorted, and sums in floating point.
class SortingSampler {
 public:
  explicit SortingSampler(const SamplingOptions& options) : options_(options) {}

  std::int64_t sample(const std::vector<float>& logits) {
    const std::uint64_t random = random_bits(options_.seed, num_drawn_++);
    std::vector<std::int64_t> ids(logits.size());
    std::iota(ids.begin(), ids.end(), 0);
    std::ranges::stable_sort(ids, [&](std::int64_t a, std::int64_t b) { return logits[a] > logits[b]; });
    if (options_.top_k > 0) ids.resize(std::min(ids.size(), static_cast<std::size_t>(options_.top_k)));
    if (options_.temperature == 0 || ids.size() == 1) return ids[0];
    std::vector<double> weights;
    for (const std::int64_t id : ids) weights.push_back(std::exp((logits[id] - logits[ids[0]]) / options_.temperature));
    weights.resize(count_reaching(weights, options_.top_p));
    while (weights.back() < options_.min_p) weights.pop_back();
    return ids[count_reaching(weights, static_cast<double>(random >> 11) * 0x1p-53) - 1];
  }

 private:
  static std::size_t count_reaching(const std::vector<double>& weights, double share) {
    const double target = share * std::accumulate(weights.begin(), weights.end(), 0.0);
    double sum = 0;
    for (std::size_t n = 0; n < weights.size(); ++n) {
      sum += weights[n];
      if (sum >= target) return n + 1;
    }
    return weights.size();
  }

  SamplingOptions options_;
  std::uint64_t num_drawn_ = 0;
};

TEST(TokenSampler, DrawsWhatSortingTheWholeVocabularyDraws) {
  std::mt19937 random(11);
  for (const std::size_t vocab : {2, 127, 129, 5000}) {
    for (const float spread : {0.0f, 0.3f, 3.0f, 20.0f}) {
      std::vector<float> logits(vocab);
      // Few different values: there are many ties.
      for (float& logit : logits) logit = spread * static_cast<float>(random() % 64) / 16;
      for (const SamplingOptions& options :
           {SamplingOptions{}, SamplingOptions{.temperature = 0}, SamplingOptions{.temperature = 0.2},
            SamplingOptions{.top_k = 1}, SamplingOptions{.top_k = 50}, SamplingOptions{.top_k = 2000},
            SamplingOptions{.top_p = 0.9}, SamplingOptions{.top_p = 1e-6}, SamplingOptions{.min_p = 0.05},
            SamplingOptions{.min_p = 1}, SamplingOptions{.temperature = 2, .top_k = 200, .top_p = 0.7},
            SamplingOptions{.temperature = 1.3, .top_p = 0.99, .min_p = 0.01}}) {
        TokenSampler sampler(options);
        SortingSampler definition(options);
        for (int i = 0; i < 25; ++i) {
          ASSERT_EQ(sampler.sample(logits), definition.sample(logits))
              << "vocab " << vocab << ", spread " << spread << ", temperature " << options.temperature << ", top_k "
              << options.top_k << ", top_p " << options.top_p << ", min_p " << options.min_p << ", draw " << i;
        }
      }
    }
  }
}

TEST(TokenSampler, TakesOneInfinityAndNothingButInfinities) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  TokenSampler sampler({.top_p = 0.9});
  for (int i = 0; i < 20; ++i) {
    EXPECT_EQ(sampler.sample(std::vector<float>{0, kInfinity, 0}), 1);
    EXPECT_LT(sampler.sample(std::vector<float>{-kInfinity, -kInfinity}), 2);
  }
}

TEST(TokenSampler, RefusesWhatMakesNoSense) {
  EXPECT_THROW(TokenSampler({.temperature = -1}), Error);
  EXPECT_THROW(TokenSampler({.top_k = -1}), Error);
  EXPECT_THROW(TokenSampler({.top_p = 0}), Error);
  EXPECT_THROW(TokenSampler({.top_p = 1.5}), Error);
  EXPECT_THROW(TokenSampler({.min_p = -0.1}), Error);
  EXPECT_THROW(TokenSampler({.min_p = 1.1}), Error);
  EXPECT_THROW(TokenSampler({.repetition_penalty = 0}), Error);
  EXPECT_THROW(TokenSampler({.repetition_window = -1}), Error);
  EXPECT_THROW(TokenSampler({}).sample(std::vector<float>{0, NAN}), Error);
}

}  // namespace
}  // namespace comba::generation
