#pragma once

#include <torch/types.h>

#include <cstdint>

#include "data/token_dataset.h"
#include "models/causal_lm.h"

namespace comba::ablation {

struct HeldoutOptions {
  std::int64_t windows = 64;                ///< at most, as long as those of training, at even distances
  std::int64_t batch_size = 8;              ///< windows a pass
  std::int64_t recall_length = 2;           ///< n: tokens of what is recalled, see HeldoutText
  std::int64_t counted_tokens = 4'000'000;  ///< of the training text, to know what is rare
};

/// What a model made of held-out text.
struct HeldoutScore {
  double nats = 0;  ///< of all tokens
  std::int64_t tokens = 0;
  double recalled_nats = 0;  ///< of those that could be recalled
  std::int64_t recalled_tokens = 0;

  double loss() const { return nats / static_cast<double>(tokens); }
  double recalled_loss() const { return recalled_nats / static_cast<double>(recalled_tokens); }
};

/// Windows of held-out text, the same for all models that are compared.
///
/// A token can be recalled when it and the n - 1 tokens before it stand earlier in its window, too, and are rare, that
/// is, come at most once in 50,000 tokens of the training text: what a model knows of them it has from the context.
/// With n = 2 these are the "AR hits" of arXiv 2312.04927, section 3.
class HeldoutText {
 public:
  /// Throws Error(invalid_argument) when the held-out text is shorter than a window.
  HeldoutText(const data::TokenDataset& heldout, const data::TokenDataset& train, std::int64_t context_length,
              const HeldoutOptions& options, c10::Device device);

  /// Precondition: the model is on the device.
  HeldoutScore score(models::CausalLM& model, const models::PassOptions& pass) const;

  /// Of the held-out text, which bits per byte need.
  double bytes_per_token() const { return bytes_per_token_; }
  std::int64_t num_windows() const { return input_ids_.size(0); }
  /// Tokens that can be recalled, as labels; the others are kIgnoredLabel.  [windows, T] i64
  const at::Tensor& recalled_labels() const { return recalled_labels_; }

 private:
  std::int64_t batch_size_;
  double bytes_per_token_;
  at::Tensor input_ids_, labels_, recalled_labels_;  // [windows, T] i64
};

}  // namespace comba::ablation
