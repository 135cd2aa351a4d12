#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include "support/buffer.h"

namespace comba::test {

/// Borders of three sequences in kTokens tokens that break the rules.
struct WrongBorders {
  static constexpr std::int64_t kTokens = 300;
  const char* name;
  std::vector<double> borders;

  void put_into(Buffer& cu_seqlens) const {
    for (std::size_t i = 0; i < borders.size(); ++i) {
      const bool far = cu_seqlens.dtype() == DType::i64 && std::abs(borders[i]) > 1e9;
      cu_seqlens.set(i, far ? borders[i] * 4294967296.0 : borders[i]);  // beyond 2^62 as a number of 8 bytes
    }
  }
};

inline std::vector<WrongBorders> wrong_borders() {
  return {{"decrease", {0, 200, 100, 300}},
          {"decrease_to_nothing", {300, 200, 100, 0}},
          {"overlap", {0, 300, 10, 300}},
          {"end_beyond_the_tokens", {0, 100, 200, 1000}},
          {"are_all_beyond_the_tokens", {301, 1000, 100000, 1000000}},
          {"end_far_beyond", {0, 100, 200, 2147483647}},
          {"are_negative", {-100, -50, -1, 300}},
          {"turn_negative", {0, 100, -100, 300}},
          {"are_far_below", {-2147483648.0, 100, 200, 300}},
          {"start_late", {50, 100, 200, 300}},
          {"end_early", {0, 100, 150, 200}},
          {"swing", {-2147483648.0, 2147483647, -2147483648.0, 2147483647}}};
}

}  // namespace comba::test
