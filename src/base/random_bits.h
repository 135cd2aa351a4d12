#pragma once

#include <cstdint>

namespace comba {

/// Number `index` of the random numbers of `seed`: SplitMix64 (Steele, Lea and Flood, OOPSLA 2014), whose state is a
/// counter. So any one of them is there at once, on every device.
constexpr std::uint64_t random_bits(std::uint64_t seed, std::uint64_t index) {
  std::uint64_t x = seed + (index + 1) * 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

}  // namespace comba
