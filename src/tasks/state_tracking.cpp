#include "tasks/state_tracking.h"

#include <algorithm>
#include <array>

#include "base/message.h"

namespace comba::tasks {
namespace {

using Permutation = std::array<std::int64_t, 3>;
constexpr std::array<Permutation, 6> kS3 = {{{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}}};

/// The permutation that applies `first`, then `then`; by their numbers.
std::int64_t compose(std::int64_t first, std::int64_t then) {
  const Permutation &f = kS3.at(static_cast<std::size_t>(first)), &t = kS3.at(static_cast<std::size_t>(then));
  Permutation product;
  for (std::size_t x = 0; x < 3; ++x) product[x] = t.at(static_cast<std::size_t>(f[x]));
  return std::find(kS3.begin(), kS3.end(), product) - kS3.begin();
}

std::int64_t smallest_vocab(const std::string& task) {
  return task == "s3" ? 6 : task == "mqar" ? 4 : task == "selective-copy" ? 1 : 2;
}

}  // namespace

Segment make_state_tracking(const DataSpec& spec, const SegmentSpec& segment, NumpyRandom& random) {
  const std::int64_t vocab = spec.vocab;
  const bool is_s3 = spec.task == "s3";
  at::Tensor inputs = at::empty({segment.examples, segment.length}, at::kLong);
  at::Tensor targets = at::empty_like(inputs);
  auto* token = inputs.mutable_data_ptr<std::int64_t>();
  auto* target = targets.mutable_data_ptr<std::int64_t>();
  for (std::int64_t row = 0; row < segment.examples; ++row) {
    std::int64_t state = 0;  // the neutral element of each of these groups
    for (std::int64_t t = 0; t < segment.length; ++t, ++token, ++target) {
      *token = random.randint(0, vocab);
      state = is_s3 ? compose(state, *token) : (state + *token) % vocab;
      *target = state;
    }
  }
  const at::Tensor positions = at::arange(segment.length, at::kLong).expand_as(inputs).contiguous();
  return {.inputs = inputs, .positions = positions, .targets = targets};
}

void validate_vocab(const DataSpec& spec) {
  constexpr std::int64_t kLargest = std::int64_t{1} << 24;
  const std::int64_t smallest = smallest_vocab(spec.task);
  const bool is_fixed = spec.task == "s3" || spec.task == "parity";
  require(is_fixed ? spec.vocab == smallest : spec.vocab >= smallest && spec.vocab <= kLargest,
          ErrorCode::invalid_argument, "[task] the vocabulary of ", spec.task, " must be ", is_fixed ? "" : "at least ",
          smallest, "; got ", spec.vocab);
}

}  // namespace comba::tasks
