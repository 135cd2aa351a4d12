#include "tasks/selective_copy.h"

#include <algorithm>
#include <vector>

#include "base/message.h"

namespace comba::tasks {

Segment make_selective_copy(const DataSpec& spec, const SegmentSpec& segment, NumpyRandom& random) {
  const std::int64_t num_tokens = segment.items, context = segment.length - num_tokens;
  const std::int64_t blank = spec.vocab, mark = spec.vocab + 1;
  at::Tensor inputs = at::full({segment.examples, segment.length}, blank, at::kLong);
  inputs.narrow(1, context, num_tokens).fill_(mark);
  at::Tensor targets = at::empty({segment.examples, num_tokens}, at::kLong);
  auto* input = inputs.mutable_data_ptr<std::int64_t>();
  auto* target = targets.mutable_data_ptr<std::int64_t>();
  for (std::int64_t row = 0; row < segment.examples; ++row, input += segment.length, target += num_tokens) {
    for (std::int64_t i = 0; i < num_tokens; ++i) target[i] = random.randint(0, spec.vocab);
    const auto chosen = random.choice(context, num_tokens);
    std::vector<std::uint32_t> places(chosen.begin(), chosen.end());
    std::sort(places.begin(), places.end());
    for (std::int64_t i = 0; i < num_tokens; ++i) input[places[static_cast<std::size_t>(i)]] = target[i];
  }
  const at::Tensor positions = at::arange(context, segment.length, at::kLong).expand_as(targets).contiguous();
  return {.inputs = inputs, .positions = positions, .targets = targets};
}

void validate_selective_copy(const DataSpec& spec, const SegmentSpec& segment) {
  require(2 * segment.items <= segment.length, ErrorCode::invalid_argument, "[selective-copy] ", segment.items,
          " tokens and as many marks must fit into the length; got ", segment.length);
  require(spec.vocab >= 2, ErrorCode::invalid_argument, "[selective-copy] there must be at least 2 tokens; got ",
          spec.vocab);
}

}  // namespace comba::tasks
