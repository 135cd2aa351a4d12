#include "tasks/mqar.h"

#include <cmath>
#include <vector>

#include "base/message.h"

namespace comba::tasks {
namespace {

constexpr double kPower = 0.01;  // the exponent a of the power law

/// Row by row, P of the numbers from `first` on, below `end`.  [N, P]
at::Tensor draw_tokens(NumpyRandom& random, const SegmentSpec& segment, std::int64_t first, std::int64_t end) {
  at::Tensor tokens = at::empty({segment.examples, segment.items}, at::kLong);
  auto* token = tokens.mutable_data_ptr<std::int64_t>();
  for (std::int64_t row = 0; row < segment.examples; ++row) {
    for (const std::uint32_t chosen : random.choice(end - first, segment.items)) *token++ = first + chosen;
  }
  return tokens;
}

/// p[i] = a (i + 1)^(a - 1), divided by their sum.
std::vector<double> power_law(std::int64_t size) {
  std::vector<double> p;
  double sum = 0;
  for (std::int64_t i = 1; i <= size; ++i) {
    p.push_back(kPower * std::pow(static_cast<double>(i), kPower - 1));
    sum += p.back();
  }
  for (double& value : p) value /= sum;
  return p;
}

/// [N, P]
at::Tensor draw_gaps(NumpyRandom& random, const SegmentSpec& segment) {
  const std::vector<double> p = power_law((segment.length - 2 * segment.items) / 2);
  at::Tensor gaps = at::empty({segment.examples, segment.items}, at::kLong);
  auto* gap = gaps.mutable_data_ptr<std::int64_t>();
  for (std::int64_t row = 0; row < segment.examples; ++row) {
    for (const std::int64_t chosen : random.choice(p, segment.items)) *gap++ = chosen;
  }
  return gaps;
}

}  // namespace

Segment make_mqar(const DataSpec& spec, const SegmentSpec& segment, NumpyRandom& random, const at::Generator& fillers) {
  const std::int64_t context = 2 * segment.items;
  const at::Tensor keys = draw_tokens(random, segment, 1, spec.vocab / 2);
  const at::Tensor values = draw_tokens(random, segment, spec.vocab / 2, spec.vocab);
  const at::Tensor positions = draw_gaps(random, segment) * 2 + context;

  at::Tensor inputs = at::zeros({segment.examples, segment.length}, at::kLong);
  inputs.narrow(1, 0, context).copy_(at::stack({keys, values}, /*dim=*/2).flatten(1));
  inputs.scatter_(1, positions, keys);
  if (spec.random_non_queries) {
    inputs = at::where(inputs == 0, at::randint(spec.vocab, inputs.sizes(), fillers, at::kLong), inputs);
  }
  return {.inputs = inputs, .positions = positions, .targets = values};
}

void validate_mqar(const DataSpec& spec, const SegmentSpec& segment) {
  require(segment.length % 2 == 0, ErrorCode::invalid_argument, "[mqar] the length must be even; got ", segment.length);
  require(4 * segment.items <= segment.length, ErrorCode::invalid_argument, "[mqar] ", segment.items,
          " pairs and as many queries must fit into the length, at two tokens each; got ", segment.length);
  require(spec.vocab > segment.length, ErrorCode::invalid_argument,
          "[mqar] the vocabulary must be larger than the length; got ", spec.vocab, " and ", segment.length);
}

}  // namespace comba::tasks
