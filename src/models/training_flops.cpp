#include "models/training_flops.h"

#include <algorithm>

#include "models/causal_lm.h"

namespace comba::models {
namespace {

constexpr double kChunk = 64;

/// Tokens that a token sees on average, itself included.
double mean_span(const AttentionConfig& attention, std::int64_t context_length) {
  const auto tokens = static_cast<double>(context_length);
  const double window = std::min(tokens, static_cast<double>(attention.window_size.value_or(context_length)));
  return window - window * (window - 1) / 2 / tokens;
}

}  // namespace

TrainingFlops training_flops_per_token(const ModelConfig& config, std::int64_t context_length) {
  double weights = static_cast<double>(config.vocab_size * config.hidden_size);
  for (const ParameterRow& row : parameter_table(config)) {
    const bool is_output = row.name == "lm_head.weight", is_embedding = row.name == "model.embeddings.weight";
    if (row.shape.size() == 2 && !is_output && !is_embedding) weights += static_cast<double>(row.count);
  }
  const auto num_attention = static_cast<double>(config.attn ? config.attn->layers.size() : 0);
  const double num_delta_rule = static_cast<double>(config.num_hidden_layers) - num_attention;
  const auto k = static_cast<double>(config.head_dim), v = static_cast<double>(config.head_v_dim());
  TrainingFlops flops{.linear = 6 * weights};
  flops.mixer = num_delta_rule * static_cast<double>(config.num_v_heads) * (20 * k * v + 14 * kChunk * (k + v));
  if (config.attn) {
    flops.mixer +=
        num_attention * 12 * static_cast<double>(config.hidden_size) * mean_span(*config.attn, context_length);
  }
  return flops;
}

}  // namespace comba::models
