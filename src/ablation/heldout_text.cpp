#include "ablation/heldout_text.h"

#include <algorithm>
#include <span>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "base/message.h"

namespace comba::ablation {
namespace {

constexpr std::int64_t kRare = 50'000;  // tokens to each time that a rare sequence comes

/// The n tokens that end at `last`, mixed into one number: two sequences in 2^64 are taken for one.
std::uint64_t key_of(std::span<const std::int64_t> tokens, std::size_t last, std::size_t n) {
  std::uint64_t key = 0;
  for (std::size_t i = last + 1 - n; i <= last; ++i) {
    key = (key ^ static_cast<std::uint64_t>(tokens[i])) * 0x9E3779B97F4A7C15u;
    key ^= key >> 29;
  }
  return key;
}

using Counts = std::unordered_map<std::uint64_t, std::int64_t>;

Counts count_sequences(const data::TokenDataset& train, std::int64_t num_tokens, std::size_t n) {
  std::vector<std::int64_t> tokens(static_cast<std::size_t>(std::min(num_tokens, train.num_tokens())));
  train.read_tokens(0, tokens);
  Counts counts;
  for (std::size_t i = n - 1; i < tokens.size(); ++i) ++counts[key_of(tokens, i, n)];
  return counts;
}

/// Of one window of T + 1 tokens: which of the last T can be recalled.
void mark_recalled(std::span<const std::int64_t> window, const Counts& counts, std::int64_t most, std::size_t n,
                   std::span<std::int64_t> recalled_labels) {
  std::unordered_set<std::uint64_t> seen;
  for (std::size_t i = n - 1; i < window.size(); ++i) {
    const std::uint64_t key = key_of(window, i, n);
    const auto count = counts.find(key);
    const bool rare = count == counts.end() || count->second <= most;
    if (!seen.insert(key).second && rare && i > 0 && recalled_labels[i - 1] == data::kIgnoredLabel) {
      recalled_labels[i - 1] = window[i];
    }
  }
}

double sum_of_nats(models::CausalLM& model, const at::Tensor& input_ids, const at::Tensor& labels, std::int64_t count,
                   const models::PassOptions& pass) {
  if (count == 0) return 0;
  return model.loss(input_ids, labels, {}, pass).item<double>() * static_cast<double>(count);
}

std::int64_t count_labels(const at::Tensor& labels) {
  return labels.ne(data::kIgnoredLabel).sum().item<std::int64_t>();
}

}  // namespace

HeldoutText::HeldoutText(const data::TokenDataset& heldout, const data::TokenDataset& train,
                         std::int64_t context_length, const HeldoutOptions& options, c10::Device device)
    : batch_size_(options.batch_size),
      bytes_per_token_(static_cast<double>(heldout.num_bytes()) / static_cast<double>(heldout.num_tokens())) {
  require(heldout.num_tokens() > context_length, ErrorCode::invalid_argument,
          "[ablation] the held-out text must be longer than a window of ", context_length, " tokens; got ",
          heldout.num_tokens());
  const std::int64_t span = context_length + 1, spare = heldout.num_tokens() - span;
  const std::int64_t count = std::clamp<std::int64_t>(heldout.num_tokens() / span, 1, options.windows);
  const auto n = static_cast<std::size_t>(options.recall_length);
  const Counts counts = count_sequences(train, options.counted_tokens, n);
  const std::int64_t most = std::min(options.counted_tokens, train.num_tokens()) / kRare;

  at::Tensor windows = at::empty({count, span}, at::kLong), labels = at::empty_like(windows);
  recalled_labels_ = at::full({count, context_length}, data::kIgnoredLabel, at::kLong);
  for (std::int64_t i = 0; i < count; ++i) {
    const auto row = [&](const at::Tensor& tensor) {
      return std::span(tensor[i].mutable_data_ptr<std::int64_t>(), static_cast<std::size_t>(tensor.size(1)));
    };
    const std::int64_t start = count == 1 ? 0 : spare * i / (count - 1);
    heldout.read_tokens(start, row(windows));
    heldout.read_labels(start, row(labels));
    mark_recalled(row(windows), counts, most, n, row(recalled_labels_));
  }
  labels_ = labels.slice(1, 1).contiguous();
  recalled_labels_.masked_fill_(labels_.eq(data::kIgnoredLabel), data::kIgnoredLabel);
  input_ids_ = windows.slice(1, 0, context_length).contiguous().to(device);
  labels_ = labels_.to(device);
  recalled_labels_ = recalled_labels_.to(device);
}

HeldoutScore HeldoutText::score(models::CausalLM& model, const models::PassOptions& pass) const {
  const at::NoGradGuard no_grad;
  HeldoutScore score;
  for (std::int64_t first = 0; first < num_windows(); first += batch_size_) {
    const auto part = [&](const at::Tensor& tensor) { return tensor.slice(0, first, first + batch_size_); };
    const std::int64_t tokens = count_labels(part(labels_)), recalled = count_labels(part(recalled_labels_));
    score.nats += sum_of_nats(model, part(input_ids_), part(labels_), tokens, pass);
    score.recalled_nats += sum_of_nats(model, part(input_ids_), part(recalled_labels_), recalled, pass);
    score.tokens += tokens;
    score.recalled_tokens += recalled;
  }
  return score;
}

}  // namespace comba::ablation
