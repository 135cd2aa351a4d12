#include "training/batch.h"

#include <algorithm>
#include <span>

namespace comba::training {
namespace {

/// Tokens from `first` on, going on at the start of the stream behind its end.
void read_ring(const data::TokenDataset& dataset, std::int64_t first, std::span<std::int64_t> ids) {
  const auto before_end = static_cast<std::size_t>(dataset.num_tokens() - first);
  const std::size_t head = std::min(ids.size(), before_end);
  dataset.read_tokens(first, ids.first(head));
  dataset.read_tokens(0, ids.subspan(head));
}

}  // namespace

Batch read_batch(const data::TokenDataset& dataset, const WindowSampler& sampler, std::int64_t first_sample,
                 std::int64_t batch_size) {
  const std::int64_t window_tokens = sampler.context_length() + 1;
  at::Tensor windows = at::empty({batch_size, window_tokens}, at::kLong);
  for (std::int64_t b = 0; b < batch_size; ++b) {
    std::int64_t* ids = windows[b].data_ptr<std::int64_t>();
    read_ring(dataset, sampler.window_start(first_sample + b), {ids, static_cast<std::size_t>(window_tokens)});
  }
  return {.input_ids = windows.slice(1, 0, window_tokens - 1).contiguous(),
          .labels = windows.slice(1, 1, window_tokens).contiguous()};
}

}  // namespace comba::training
