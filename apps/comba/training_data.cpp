#include "training_data.h"

#include <fmt/format.h>

#include <vector>

#include "base/message.h"

namespace comba::cli {
namespace {

training::Mixture open_mixture(const TrainSettings& settings, std::deque<data::TokenDataset>& datasets) {
  std::vector<MixtureEntry> entries = settings.mixture;
  if (entries.empty()) entries.push_back({.path = settings.data});
  std::vector<training::MixturePart> parts;
  for (const MixtureEntry& entry : entries) {
    datasets.push_back(data::TokenDataset::open(entry.path, data::Split::train));
    parts.push_back({.dataset = &datasets.back(), .weight = entry.weight, .name = entry.path.string()});
  }
  return training::Mixture(std::move(parts));
}

}  // namespace

TrainingData::TrainingData(const TrainSettings& settings)
    : mixture_(open_mixture(settings, train_)),
      heldout_(data::TokenDataset::open(settings.data, data::Split::heldout)) {
  require(heldout_.tokenizer().to_json() == mixture_.tokenizer().to_json(), ErrorCode::invalid_argument,
          "[train] the held-out text must have the mixture's tokenizer, ", mixture_.tokenizer().description(), "; got ",
          heldout_.tokenizer().description(), " (data.path ", settings.data.string(), ")");
}

std::string TrainingData::description(std::int64_t num_tokens) const {
  std::string text;
  for (std::size_t i = 0; i < mixture_.parts().size(); ++i) {
    const training::MixturePart& part = mixture_.parts()[i];
    const double epochs =
        mixture_.share(i) * static_cast<double>(num_tokens) / static_cast<double>(part.dataset->num_tokens());
    text += fmt::format("{}{:.1f}% {} ({:.2f} epochs)", i == 0 ? "data: " : ", ", 100 * mixture_.share(i), part.name,
                        epochs);
  }
  return text;
}

double TrainingData::tokens_per_byte() const {
  double bytes_per_token = 0;
  for (std::size_t i = 0; i < mixture_.parts().size(); ++i) {
    const data::TokenDataset& dataset = *mixture_.parts()[i].dataset;
    bytes_per_token +=
        mixture_.share(i) * static_cast<double>(dataset.num_bytes()) / static_cast<double>(dataset.num_tokens());
  }
  return 1 / bytes_per_token;
}

}  // namespace comba::cli
