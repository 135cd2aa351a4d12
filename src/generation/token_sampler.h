#pragma once

#include <cstdint>
#include <deque>
#include <span>
#include <vector>

namespace comba::generation {

/// How the next token is drawn from a model's logits.
struct SamplingOptions {
  double temperature = 1.0;             ///< logits are divided by it; 0: always the likeliest token
  std::int64_t top_k = 0;               ///< only the k likeliest tokens; 0: all
  double top_p = 1.0;                   ///< of those, only the likeliest that together reach this probability
  double min_p = 0.0;                   ///< of those, only the ones at least this fraction as likely as the likeliest
  double repetition_penalty = 1.0;      ///< above 1: recent tokens become less likely; below 1: likelier
  std::int64_t repetition_window = 64;  ///< how many tokens are recent, the prompt's included
  std::uint64_t seed = 0;
};

/// Draws tokens; the same options and logits give the same tokens on every machine. Ties go to the smaller id.
/// The penalty divides the positive logits of recent tokens and multiplies the negative ones (CTRL, arXiv 1909.05858),
/// before the temperature.
class TokenSampler {
 public:
  /// Throws Error(invalid_argument) for an option out of range: temperature, top_k and repetition_window must not be
  /// negative, top_p lies in (0, 1], min_p in [0, 1], repetition_penalty above 0.
  explicit TokenSampler(const SamplingOptions& options);

  /// Takes note of tokens that were not drawn here: the prompt's.
  void observe(std::span<const std::int64_t> tokens);

  /// An index into `logits`, which counts as recent from then on; number n of them takes number n of the seed's random
  /// numbers (base/random_bits.h). Throws Error(numerical) when a logit is NaN.
  std::int64_t sample(std::span<const float> logits);

  /// The last tokens, oldest first: repetition_window of them, once there have been so many.
  std::vector<std::int64_t> recent() const { return {recent_.begin(), recent_.end()}; }

 private:
  std::vector<float> penalized(std::span<const float> logits) const;
  std::int64_t draw(std::span<const float> logits);

  SamplingOptions options_;
  std::uint64_t num_drawn_ = 0;
  std::deque<std::int64_t> recent_;
};

}  // namespace comba::generation
