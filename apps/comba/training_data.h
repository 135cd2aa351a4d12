#pragma once

#include <cstdint>
#include <deque>
#include <string>

#include "data/token_dataset.h"
#include "train_settings.h"
#include "training/mixture.h"

namespace comba::cli {

/// The open data sets of a run.
class TrainingData {
 public:
  /// Throws Error as TokenDataset::open and Mixture do, and invalid_argument when the held-out text has another
  /// tokenizer.
  explicit TrainingData(const TrainSettings& settings);

  const training::Mixture& mixture() const { return mixture_; }
  const data::TokenDataset& heldout() const { return heldout_; }

  /// "data: 80.0% web.data (0.31 epochs), 20.0% code.data (2.10 epochs)": what a run of so many tokens reads.
  std::string description(std::int64_t num_tokens) const;
  /// Of what is trained on, which bits per byte need.
  double tokens_per_byte() const;

 private:
  std::deque<data::TokenDataset> train_;  // a deque: the mixture keeps their addresses
  training::Mixture mixture_;
  data::TokenDataset heldout_;
};

}  // namespace comba::cli
