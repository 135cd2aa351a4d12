#include "tasks/numpy_random.h"

#include <algorithm>
#include <bit>
#include <numeric>
#include <utility>

namespace comba::tasks {

std::uint32_t NumpyRandom::below(std::uint32_t bound) {
  if (bound == 0) return 0;  // without a draw
  const std::uint32_t mask = ~std::uint32_t{0} >> std::countl_zero(bound);
  std::uint32_t value;
  do {
    value = static_cast<std::uint32_t>(bits_()) & mask;
  } while (value > bound);
  return value;
}

std::int64_t NumpyRandom::randint(std::int64_t low, std::int64_t high) {
  return low + below(static_cast<std::uint32_t>(high - 1 - low));
}

double NumpyRandom::random_sample() {
  const auto high = static_cast<double>(bits_() >> 5);  // 27 bits, drawn first
  const auto low = static_cast<double>(bits_() >> 6);   // 26 bits
  return (high * 67108864.0 + low) / 9007199254740992.0;
}

std::span<const std::uint32_t> NumpyRandom::permutation(std::int64_t n) {
  permuted_.resize(static_cast<std::size_t>(n));
  std::iota(permuted_.begin(), permuted_.end(), 0u);
  for (auto i = static_cast<std::uint32_t>(n - 1); i > 0; --i) std::swap(permuted_[i], permuted_[below(i)]);
  return permuted_;
}

std::span<const std::uint32_t> NumpyRandom::choice(std::int64_t n, std::int64_t size) {
  return permutation(n).first(static_cast<std::size_t>(size));
}

// Draws as many as are missing by the cumulative distribution, keeps each number once in the order of its first draw,
// takes what was found out of the distribution, and goes on until there are enough.
std::vector<std::int64_t> NumpyRandom::choice(std::span<const double> p, std::int64_t size) {
  std::vector<double> weights(p.begin(), p.end()), cumulative(p.size());
  std::vector<std::int64_t> found;
  while (std::ssize(found) < size) {
    for (const std::int64_t taken : found) weights[static_cast<std::size_t>(taken)] = 0;
    std::partial_sum(weights.begin(), weights.end(), cumulative.begin());
    const double total = cumulative.back();
    for (double& value : cumulative) value /= total;
    const std::size_t found_before = found.size();
    for (std::int64_t missing = size - std::ssize(found); missing > 0; --missing) {
      const auto drawn = std::upper_bound(cumulative.begin(), cumulative.end(), random_sample()) - cumulative.begin();
      const auto begin = found.begin() + static_cast<std::ptrdiff_t>(found_before);
      if (std::find(begin, found.end(), drawn) == found.end()) found.push_back(drawn);
    }
  }
  return found;
}

}  // namespace comba::tasks
