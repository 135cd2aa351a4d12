#pragma once

#include <cstdint>
#include <random>
#include <span>
#include <vector>

namespace comba::tasks {

/// The draws of numpy.random.RandomState(seed), number for number, as far as published data sets are defined by them.
/// That generator is frozen (NEP 19), so these numbers do not change with numpy's version.
class NumpyRandom {
 public:
  explicit NumpyRandom(std::uint32_t seed) : bits_(seed) {}

  /// randint(low, high): low <= result < high, high - low < 2^32.
  std::int64_t randint(std::int64_t low, std::int64_t high);

  /// random_sample(): uniform in [0, 1), with 53 bits.
  double random_sample();

  /// permutation(n), 0 < n < 2^32. The numbers stay valid until the next call.
  std::span<const std::uint32_t> permutation(std::int64_t n);

  /// choice(n, size, replace=False): `size` of the numbers below n. Valid until the next call of permutation or choice.
  std::span<const std::uint32_t> choice(std::int64_t n, std::int64_t size);

  /// choice(n, size, replace=False, p=p) with n = p.size(): p sums to 1 and has at least `size` elements above 0.
  std::vector<std::int64_t> choice(std::span<const double> p, std::int64_t size);

 private:
  std::uint32_t below(std::uint32_t bound);  // 0 <= result <= bound, by rejection

  std::mt19937 bits_;  // seeded as numpy seeds with one number: by Knuth's recurrence
  std::vector<std::uint32_t> permuted_;
};

}  // namespace comba::tasks
