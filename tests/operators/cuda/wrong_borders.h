#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "comba/error.h"
#include "support/buffer.h"

namespace comba::test {

/// Borders of three sequences in kTokens tokens that break the rules.
struct WrongBorders {
  static constexpr std::int64_t kTokens = 300;
  const char* name;
  std::vector<double> borders;
  std::string message;  ///< of check_borders(); without what depends on the dtype of the borders

  void put_into(Buffer& cu_seqlens) const {
    for (std::size_t i = 0; i < borders.size(); ++i) {
      const bool far = cu_seqlens.dtype() == DType::i64 && std::abs(borders[i]) > 1e9;
      cu_seqlens.set(i, far ? borders[i] * 4294967296.0 : borders[i]);  // beyond 2^62 as a number of 8 bytes
    }
  }
};

inline std::vector<WrongBorders> wrong_borders() {
  return {{"decrease", {0, 200, 100, 300}, "must never decrease; got 200 at 1, 100 at 2"},
          {"decrease_to_nothing", {300, 200, 100, 0}, "must start at 0; got 300"},
          {"overlap", {0, 300, 10, 300}, "must never decrease; got 300 at 1, 10 at 2"},
          {"end_beyond_the_tokens", {0, 100, 200, 1000}, "must end at T = 300; got 1000 at 3"},
          {"are_all_beyond_the_tokens", {301, 1000, 100000, 1000000}, "must start at 0; got 301"},
          {"end_far_beyond", {0, 100, 200, 2147483647}, "must end at T = 300; got "},
          {"are_negative", {-100, -50, -1, 300}, "must start at 0; got -100"},
          {"turn_negative", {0, 100, -100, 300}, "must never decrease; got 100 at 1, -100 at 2"},
          {"are_far_below", {-2147483648.0, 100, 200, 300}, "must start at 0; got -"},
          {"start_late", {50, 100, 200, 300}, "must start at 0; got 50"},
          {"end_early", {0, 100, 150, 200}, "must end at T = 300; got 200 at 3"},
          {"swing", {-2147483648.0, 2147483647, -2147483648.0, 2147483647}, "must start at 0; got -"}};
}

/// The message of the call's check_borders(), or "" when it finds nothing.
template <class Call>
std::string found_by(Call& call) {
  try {
    call.check_borders();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::invalid_argument);
    return error.what();
  }
  return "";
}

inline bool all_nan(const Buffer& x) {
  const std::vector<double> values = x.values();
  return std::all_of(values.begin(), values.end(), [](double value) { return std::isnan(value); });
}

}  // namespace comba::test
