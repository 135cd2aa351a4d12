#pragma once

#include <cstdint>
#include <random>
#include <span>
#include <vector>

namespace comba::generation {

/// How the next token is drawn from a model's logits.
struct SamplingOptions {
  double temperature = 1.0;  ///< logits are divided by it; 0: always the likeliest token
  std::int64_t top_k = 0;    ///< only the k likeliest tokens; 0: all
  double top_p = 1.0;        ///< only the likeliest tokens that together reach this probability
  std::uint64_t seed = 0;
};

/// Draws tokens; the same options and logits give the same tokens on every machine. Ties go to the smaller id.
class TokenSampler {
 public:
  /// Throws Error(invalid_argument) for a negative temperature or top_k, or a top_p outside (0, 1].
  explicit TokenSampler(const SamplingOptions& options);

  /// An index into `logits`. Throws Error(numerical) when a logit is NaN.
  std::int64_t sample(std::span<const float> logits);

 private:
  /// The tokens that may be drawn, likeliest first.
  std::vector<std::int64_t> candidates(std::span<const float> logits) const;

  SamplingOptions options_;
  std::mt19937_64 random_;
};

}  // namespace comba::generation
