#pragma once

#include <cstdint>

namespace comba::training {

/// The order in which a run reads its training tokens, as a function of the position alone: nothing to save, nothing
/// that depends on how a batch is split.
///
/// An epoch cuts the token stream, taken as a ring, into windows of `context_length` tokens that do not overlap, from
/// an offset drawn for that epoch, and visits them in an order drawn for that epoch. A window predicts each of its
/// tokens' successors, so its last label is the first token of the next window.
class WindowSampler {
 public:
  /// Throws Error(invalid_argument) when the stream has fewer than context_length + 1 tokens.
  WindowSampler(std::int64_t num_tokens, std::int64_t context_length, std::uint64_t seed);

  std::int64_t context_length() const { return context_length_; }
  std::int64_t windows_per_epoch() const { return windows_per_epoch_; }

  /// First token of window number `sample` of the run (0 is the first), in [0, num_tokens).
  /// Tokens past the end of the stream are those at its start.
  std::int64_t window_start(std::int64_t sample) const;

 private:
  std::int64_t num_tokens_;
  std::int64_t context_length_;
  std::int64_t windows_per_epoch_;
  std::uint64_t seed_;
};

}  // namespace comba::training
