#include "operators/model_step/model_step.h"

#include <algorithm>

#include "base/message.h"

namespace comba::model_step {

std::string refusal(const Dims& x) {
  if (x.K > 256 || x.V > 256) return concat("head dims must be at most 256; got K = ", x.K, " and V = ", x.V);
  if (x.V % 16 != 0) return concat("the value dim must be a multiple of 16; got ", x.V);
  if (x.W != 0 && x.W != 4) return concat("the convolutions must have width 4; got ", x.W);
  return {};
}

std::int64_t bucket_of(std::int64_t rows, std::int64_t max_rows) {
  constexpr std::int64_t kLargeStep = 64;
  std::int64_t bucket = 1;
  while (bucket < rows && bucket < kLargeStep) bucket *= 2;
  if (bucket < rows) bucket = padded(rows, kLargeStep);
  return std::min(bucket, max_rows);
}

}  // namespace comba::model_step
