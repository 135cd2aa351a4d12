#include "generation/token_sampler.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>

#include "base/message.h"
#include "base/random_bits.h"

namespace comba::generation {
namespace {

/// Weights are whole numbers, so that their sums do not depend on the order: the likeliest token's is 2^43, and a
/// vocabulary of two million cannot overflow. What is less likely than the likeliest by more than that is never drawn.
constexpr double kWeightOfLikeliest = 0x1p43;
constexpr double kLeastExponent = -30;  // e^-30 is less than 2^-43

__extension__ using Wide = unsigned __int128;

/// Candidates, likeliest first, sorted only as far as they are looked at.
class SortedPrefix {
 public:
  SortedPrefix(std::span<const float> logits, std::vector<std::int64_t> ids) : logits_(logits), ids_(std::move(ids)) {}

  std::size_t size() const { return ids_.size(); }

  /// Number `index` of the order.
  std::int64_t operator[](std::size_t index) {
    while (index >= sorted_) sort_more();
    return ids_[index];
  }

 private:
  void sort_more() {
    constexpr std::size_t kFirst = 128, kGrowth = 8;
    const std::size_t end = std::min(ids_.size(), sorted_ == 0 ? kFirst : sorted_ * kGrowth);
    const auto likelier = [&](std::int64_t a, std::int64_t b) {
      return logits_[a] != logits_[b] ? logits_[a] > logits_[b] : a < b;
    };
    const auto from = ids_.begin() + static_cast<std::ptrdiff_t>(sorted_);
    const auto to = ids_.begin() + static_cast<std::ptrdiff_t>(end);
    if (sorted_ == 0) {
      std::partial_sort(from, to, ids_.end(), likelier);  // the fastest for so few
    } else {
      if (end < ids_.size()) std::nth_element(from, to, ids_.end(), likelier);
      std::sort(from, to, likelier);
    }
    sorted_ = end;
  }

  std::span<const float> logits_;
  std::vector<std::int64_t> ids_;
  std::size_t sorted_ = 0;
};

}  // namespace

TokenSampler::TokenSampler(const SamplingOptions& options) : options_(options) {
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

std::int64_t TokenSampler::sample(std::span<const float> logits) {
  require(std::ranges::none_of(logits, [](float x) { return std::isnan(x); }) && !logits.empty(), ErrorCode::numerical,
          "[TokenSampler] logits must be numbers; got NaN or nothing");
  const std::int64_t token = options_.repetition_penalty == 1 ? draw(logits) : draw(penalized(logits));
  ++num_drawn_;
  observe({&token, 1});
  return token;
}

std::int64_t TokenSampler::draw(std::span<const float> logits) {
  const std::int64_t likeliest = std::ranges::max_element(logits) - logits.begin();  // the first of equals
  if (options_.temperature == 0 || options_.top_k == 1 || logits.size() == 1) return likeliest;

  std::vector<std::int64_t> ids(logits.size());
  std::iota(ids.begin(), ids.end(), 0);
  SortedPrefix order(logits, std::move(ids));
  const double largest = logits[likeliest];
  const auto weight = [&](std::int64_t id) -> std::uint64_t {
    const double logit = logits[id];
    if (logit == largest) return static_cast<std::uint64_t>(kWeightOfLikeliest);  // also of two infinities
    const double exponent = (logit - largest) / options_.temperature;
    if (exponent < kLeastExponent) return 0;
    return static_cast<std::uint64_t>(std::exp(exponent) * kWeightOfLikeliest);
  };

  // How many of the order may be drawn, and what they weigh together.
  std::size_t count = order.size();
  if (options_.top_k > 0) count = std::min(count, static_cast<std::size_t>(options_.top_k));
  std::uint64_t total = 0;
  if (count < order.size()) {
    for (std::size_t i = 0; i < count; ++i) total += weight(order[i]);
  } else {
    for (std::size_t id = 0; id < logits.size(); ++id) total += weight(static_cast<std::int64_t>(id));
  }
  if (options_.top_p < 1 || options_.min_p > 0) {
    const double enough = options_.top_p * static_cast<double>(total);
    const auto least = static_cast<std::uint64_t>(options_.min_p * kWeightOfLikeliest);
    std::uint64_t sum = 0;
    std::size_t n = 0;
    for (; n < count && weight(order[n]) >= least; ++n) {
      sum += weight(order[n]);
      if (options_.top_p < 1 && static_cast<double>(sum) >= enough) {
        ++n;
        break;
      }
    }
    count = n;
    total = sum;
  }

  // A uniform whole number below `total` says where in the order: the standard's distributions differ between
  // libraries.
  const auto place =
      static_cast<std::uint64_t>((static_cast<Wide>(random_bits(options_.seed, num_drawn_) >> 11) * total) >> 53);
  std::uint64_t sum = 0;
  for (std::size_t n = 0;; ++n) {
    sum += weight(order[n]);
    if (sum > place) return order[n];
  }
}

}  // namespace comba::generation
