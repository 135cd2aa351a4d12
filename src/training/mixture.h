#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "data/token_dataset.h"
#include "training/window_sampler.h"

namespace comba::training {

/// One data set of a mixture.
struct MixturePart {
  const data::TokenDataset* dataset = nullptr;
  double weight = 1;      ///< its share of the tokens trained on, beside the weights of the others
  std::string name = {};  ///< for errors, such as its directory
};

/// What a run trains on: the training splits of one or several data sets of one tokenizer, in shares by weight. The
/// data sets must outlive it.
class Mixture {
 public:
  /// One data set alone.
  Mixture(const data::TokenDataset& dataset) : parts_{{.dataset = &dataset}} {}  // NOLINT: a mixture of one
  /// Throws Error(invalid_argument) naming the part when there is none, a weight is not positive and finite, or
  /// tokenizers differ.
  explicit Mixture(std::vector<MixturePart> parts);

  const std::vector<MixturePart>& parts() const { return parts_; }
  const data::Tokenizer& tokenizer() const { return parts_[0].dataset->tokenizer(); }
  bool has_loss_mask() const;
  /// weight / (sum of weights): the part's share of the tokens trained on.
  double share(std::size_t part) const;
  /// Digest of the texts and, when there are several data sets, of their weights.
  std::string source_md5() const;

 private:
  std::vector<MixturePart> parts_;
};

/// The order in which a run reads a mixture, as a function of the position alone, as WindowSampler is for one data set.
///
/// Windows come in blocks of 1024. The blocks share out the windows so that, after any number of them, what a part has
/// had differs from its exact share by less than one window for each part before it and itself; within a block the
/// places are drawn. All windows of a part are, in that order, the windows of its own WindowSampler, up to the order
/// within a block: each part has epochs of its own. One part alone is read as by that.
class MixtureSampler {
 public:
  static constexpr std::int64_t kBlock = 1024;  ///< windows

  struct Window {
    std::size_t part = 0;
    std::int64_t start = 0;  ///< first token, in [0, num_tokens) of the part
  };

  /// Throws Error(invalid_argument) naming the part that is shorter than a window.
  MixtureSampler(const Mixture& mixture, std::int64_t context_length, std::uint64_t seed);

  std::int64_t context_length() const { return samplers_[0].context_length(); }
  /// Window number `sample` of the run (0 is the first).
  Window window(std::int64_t sample) const;

 private:
  std::vector<WindowSampler> samplers_;  // by part
  std::vector<double> share_of_rest_;    // weight over the sum of it and the weights behind it; the last is 1
  std::uint64_t seed_;
};

}  // namespace comba::training
