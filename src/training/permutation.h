#pragma once

#include <cstdint>

namespace comba::training {

/// 64 well-mixed bits of `value`: the finaliser of SplitMix64 (Steele, Lea and Flood 2014).
std::uint64_t mix_bits(std::uint64_t value);

/// A pseudo-random permutation of [0, size) that needs no memory, so that any position of a shuffled order is found at
/// once: a Feistel network on the smallest even number of bits that holds `size`, applied until the value falls inside.
class Permutation {
 public:
  /// Precondition: size >= 1. The same size and seed give the same permutation everywhere.
  Permutation(std::int64_t size, std::uint64_t seed);

  /// Where `index` of [0, size) goes.
  std::int64_t operator()(std::int64_t index) const;

 private:
  std::uint64_t encrypt(std::uint64_t value) const;

  std::uint64_t size_;
  std::uint64_t seed_;
  int half_bits_;
};

}  // namespace comba::training
