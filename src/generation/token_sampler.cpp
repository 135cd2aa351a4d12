#include "generation/token_sampler.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>

#include "base/message.h"

namespace comba::generation {
namespace {

/// A uniform number in [0, 1) from the upper 53 bits: std::uniform_real_distribution differs between libraries.
double uniform(std::mt19937_64& random) { return static_cast<double>(random() >> 11) * 0x1p-53; }

/// The smallest n whose first n weights reach `share` of their sum, at least 1.
std::size_t count_reaching(std::span<const double> weights, double share) {
  const double target = share * std::accumulate(weights.begin(), weights.end(), 0.0);
  double sum = 0;
  for (std::size_t n = 0; n < weights.size(); ++n) {
    sum += weights[n];
    if (sum >= target) return n + 1;
  }
  return weights.size();
}

}  // namespace

TokenSampler::TokenSampler(const SamplingOptions& options) : options_(options), random_(options.seed) {
  require(std::isfinite(options.temperature) && options.temperature >= 0, ErrorCode::invalid_argument,
          "[TokenSampler] temperature must be at least 0; got ", options.temperature);
  require(options.top_k >= 0, ErrorCode::invalid_argument, "[TokenSampler] top_k must be at least 0; got ",
          options.top_k);
  require(options.top_p > 0 && options.top_p <= 1, ErrorCode::invalid_argument,
          "[TokenSampler] top_p must be in (0, 1]; got ", options.top_p);
  require(options.min_p >= 0 && options.min_p <= 1, ErrorCode::invalid_argument,
          "[TokenSampler] min_p must be in [0, 1]; got ", options.min_p);
  require(std::isfinite(options.repetition_penalty) && options.repetition_penalty > 0, ErrorCode::invalid_argument,
          "[TokenSampler] repetition_penalty must be above 0; got ", options.repetition_penalty);
  require(options.repetition_window >= 0, ErrorCode::invalid_argument,
          "[TokenSampler] repetition_window must be at least 0; got ", options.repetition_window);
}

void TokenSampler::observe(std::span<const std::int64_t> tokens) {
  recent_.insert(recent_.end(), tokens.begin(), tokens.end());
  const auto window = static_cast<std::size_t>(options_.repetition_window);
  if (recent_.size() > window) recent_.erase(recent_.begin(), recent_.end() - options_.repetition_window);
}

std::vector<float> TokenSampler::penalized(std::span<const float> logits) const {
  std::vector<float> changed(logits.begin(), logits.end());
  const auto penalty = static_cast<float>(options_.repetition_penalty);
  for (const std::int64_t token : std::set(recent_.begin(), recent_.end())) {
    if (token >= static_cast<std::int64_t>(logits.size())) continue;  // BOS, where it is never drawn
    changed[token] = logits[token] > 0 ? logits[token] / penalty : logits[token] * penalty;
  }
  return changed;
}

std::vector<std::int64_t> TokenSampler::candidates(std::span<const float> logits) const {
  std::vector<std::int64_t> ids(logits.size());
  std::iota(ids.begin(), ids.end(), 0);
  const auto likelier = [&](std::int64_t a, std::int64_t b) {
    return logits[a] != logits[b] ? logits[a] > logits[b] : a < b;
  };
  const std::size_t limit = options_.temperature == 0 ? 1 : static_cast<std::size_t>(options_.top_k);
  const std::size_t count = limit == 0 ? ids.size() : std::min(limit, ids.size());
  std::partial_sort(ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(count), ids.end(), likelier);
  ids.resize(count);
  return ids;
}

std::int64_t TokenSampler::sample(std::span<const float> logits) {
  require(std::ranges::none_of(logits, [](float x) { return std::isnan(x); }) && !logits.empty(), ErrorCode::numerical,
          "[TokenSampler] logits must be numbers; got NaN or nothing");
  const std::int64_t token = options_.repetition_penalty == 1 ? draw(logits) : draw(penalized(logits));
  observe({&token, 1});
  return token;
}

std::int64_t TokenSampler::draw(std::span<const float> logits) {
  const std::vector<std::int64_t> ids = candidates(logits);
  if (ids.size() == 1) return ids[0];

  const double largest = logits[ids[0]];
  std::vector<double> weights(ids.size());
  for (std::size_t i = 0; i < ids.size(); ++i) {
    weights[i] = std::exp((logits[ids[i]] - largest) / options_.temperature);
  }
  weights.resize(count_reaching(weights, options_.top_p));
  while (weights.back() < options_.min_p) weights.pop_back();  // the likeliest weighs 1 and stays
  return ids[count_reaching(weights, uniform(random_)) - 1];
}

}  // namespace comba::generation
