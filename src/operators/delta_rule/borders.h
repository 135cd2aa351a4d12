#pragma once

#include <cstdint>
#include <string>

#include "base/message.h"

#ifdef __CUDACC__
#define COMBA_ON_EVERY_DEVICE __host__ __device__
#else
#define COMBA_ON_EVERY_DEVICE
#endif

/// The rules of the borders in cu_seqlens, the same on the host and on a GPU: 0 = b_0 <= b_1 <= ... <= b_N = T.
namespace comba::delta_rule {

enum class BorderRule : std::int32_t { holds, start, order, end };

/// The rule that border n breaks; `before` is border n - 1.
COMBA_ON_EVERY_DEVICE inline BorderRule broken_rule(std::int64_t n, std::int64_t before, std::int64_t border,
                                                    std::int64_t N, std::int64_t T) {
  if (n == 0 && border != 0) return BorderRule::start;
  if (n > 0 && border < before) return BorderRule::order;
  if (n == N && border != T) return BorderRule::end;
  return BorderRule::holds;
}

/// The first border that breaks a rule, if any does.
struct BrokenBorder {
  BorderRule rule = BorderRule::holds;
  std::int64_t n = 0, before = 0, border = 0;
};

inline std::string describe(const BrokenBorder& x, std::int64_t T) {
  switch (x.rule) {
    case BorderRule::holds:
      return "";
    case BorderRule::start:
      return concat("cu_seqlens must start at 0; got ", x.border);
    case BorderRule::order:
      return concat("cu_seqlens must never decrease; got ", x.before, " at ", x.n - 1, ", ", x.border, " at ", x.n);
    case BorderRule::end:
      return concat("cu_seqlens must end at T = ", T, "; got ", x.border, " at ", x.n);
  }
  return concat("the workspace is not that of a call with cu_seqlens; got ", static_cast<std::int32_t>(x.rule));
}

}  // namespace comba::delta_rule
