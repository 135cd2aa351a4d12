#include "training/window_sampler.h"

#include "base/message.h"
#include "training/permutation.h"

namespace comba::training {

WindowSampler::WindowSampler(std::int64_t num_tokens, std::int64_t context_length, std::uint64_t seed)
    : num_tokens_(num_tokens),
      context_length_(context_length),
      windows_per_epoch_(num_tokens / context_length),
      seed_(seed) {
  require(num_tokens > context_length, ErrorCode::invalid_argument,
          "[WindowSampler] the training split must have more tokens than context_length (", context_length, "); got ",
          num_tokens);
}

std::int64_t WindowSampler::window_start(std::int64_t sample) const {
  const std::int64_t epoch = sample / windows_per_epoch_;
  const std::uint64_t epoch_seed = mix_bits(seed_ ^ mix_bits(static_cast<std::uint64_t>(epoch)));
  const auto offset = static_cast<std::int64_t>(mix_bits(epoch_seed) % static_cast<std::uint64_t>(num_tokens_));
  const std::int64_t window = Permutation(windows_per_epoch_, epoch_seed)(sample % windows_per_epoch_);
  return (offset + window * context_length_) % num_tokens_;
}

}  // namespace comba::training
