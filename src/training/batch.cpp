#include "training/batch.h"

#include <algorithm>
#include <span>

namespace comba::training {
namespace {

/// Tokens or labels from `first` on, going on at the start of the stream behind its end.
using Read = void (data::TokenDataset::*)(std::int64_t first, std::span<std::int64_t> values) const;
void read_ring(const data::TokenDataset& dataset, Read read, std::int64_t first, std::span<std::int64_t> values) {
  const auto before_end = static_cast<std::size_t>(dataset.num_tokens() - first);
  const std::size_t head = std::min(values.size(), before_end);
  (dataset.*read)(first, values.first(head));
  (dataset.*read)(0, values.subspan(head));
}

}  // namespace

Batch read_batch(const Mixture& mixture, const MixtureSampler& sampler, std::int64_t first_sample,
                 std::int64_t batch_size) {
  const std::int64_t window_tokens = sampler.context_length() + 1;
  at::Tensor windows = at::empty({batch_size, window_tokens}, at::kLong);
  // Without a mask a label is the token itself, and is read once.
  at::Tensor labels = mixture.has_loss_mask() ? at::empty_like(windows) : windows;
  for (std::int64_t b = 0; b < batch_size; ++b) {
    const auto row = [&](const at::Tensor& tensor) {
      return std::span(tensor[b].data_ptr<std::int64_t>(), static_cast<std::size_t>(window_tokens));
    };
    const auto [part, start] = sampler.window(first_sample + b);
    const data::TokenDataset& dataset = *mixture.parts()[part].dataset;
    read_ring(dataset, &data::TokenDataset::read_tokens, start, row(windows));
    if (mixture.has_loss_mask()) read_ring(dataset, &data::TokenDataset::read_labels, start, row(labels));
  }
  return {.input_ids = windows.slice(1, 0, window_tokens - 1).contiguous(),
          .labels = labels.slice(1, 1, window_tokens).contiguous()};
}

}  // namespace comba::training
