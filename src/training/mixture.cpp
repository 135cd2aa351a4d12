#include "training/mixture.h"

#include <algorithm>
#include <cmath>

#include "base/message.h"
#include "data/md5.h"
#include "training/permutation.h"

namespace comba::training {

Mixture::Mixture(std::vector<MixturePart> parts) : parts_(std::move(parts)) {
  require(!parts_.empty(), ErrorCode::invalid_argument, "[mixture] a mixture must have data sets; got none");
  for (const MixturePart& part : parts_) {
    require(std::isfinite(part.weight) && part.weight > 0, ErrorCode::invalid_argument,
            "[mixture] a weight must be positive and finite; got ", part.weight, " (", part.name, ")");
    require(part.dataset->tokenizer().to_json() == tokenizer().to_json(), ErrorCode::invalid_argument,
            "[mixture] all data sets must have one tokenizer; got ", tokenizer().description(), " (", parts_[0].name,
            ") and ", part.dataset->tokenizer().description(), " (", part.name, ")");
  }
}

bool Mixture::has_loss_mask() const {
  return std::any_of(parts_.begin(), parts_.end(),
                     [](const MixturePart& part) { return part.dataset->has_loss_mask(); });
}

double Mixture::share(std::size_t part) const {
  double share = 0;  // of quotients: the sum of the largest numbers is none
  for (const MixturePart& other : parts_) share += other.weight / parts_[part].weight;
  return 1 / share;
}

std::string Mixture::source_md5() const {
  if (parts_.size() == 1) return parts_[0].dataset->source_md5();
  data::Md5 hash;
  for (const MixturePart& part : parts_) {
    hash.update(part.dataset->source_md5().data(), part.dataset->source_md5().size());
    hash.update(&part.weight, sizeof part.weight);
  }
  return data::to_hex(hash.finish());
}

MixtureSampler::MixtureSampler(const Mixture& mixture, std::int64_t context_length, std::uint64_t seed) : seed_(seed) {
  const std::vector<MixturePart>& parts = mixture.parts();
  for (std::size_t i = 0; i < parts.size(); ++i) {
    const std::int64_t num_tokens = parts[i].dataset->num_tokens();
    require(parts.size() == 1 || num_tokens > context_length, ErrorCode::invalid_argument,
            "[mixture] the training split of each data set must have more tokens than context_length (", context_length,
            "); got ", num_tokens, " (", parts[i].name, ")");
    samplers_.emplace_back(num_tokens, context_length, i == 0 ? seed : mix_bits(i) ^ seed);
    double rest = 0;
    for (std::size_t j = i; j < parts.size(); ++j) rest += parts[j].weight / parts[i].weight;
    share_of_rest_.push_back(1 / rest);
  }
}

MixtureSampler::Window MixtureSampler::window(std::int64_t sample) const {
  if (samplers_.size() == 1) return {.part = 0, .start = samplers_[0].window_start(sample)};
  const std::int64_t block = sample / kBlock;
  const std::uint64_t block_seed = mix_bits(~seed_ ^ mix_bits(static_cast<std::uint64_t>(block)));
  std::int64_t place = Permutation(kBlock, block_seed)(sample % kBlock);
  // Each part takes its share of what those before it have left of all windows up to here, and up to the block's end:
  // rounding so never takes a window back, and its errors do not add up.
  std::int64_t before = block * kBlock, behind = before + kBlock;
  for (std::size_t part = 0;; ++part) {
    const auto share_of = [&](std::int64_t windows) {
      return static_cast<std::int64_t>(std::floor(static_cast<double>(windows) * share_of_rest_[part] + 0.5));
    };
    const std::int64_t first = share_of(before), quota = share_of(behind) - first;
    if (place < quota) return {.part = part, .start = samplers_[part].window_start(first + place)};
    place -= quota;
    before -= first;
    behind -= first + quota;
  }
}

}  // namespace comba::training
