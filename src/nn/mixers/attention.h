#pragma once

#include <memory>
#include <optional>

#include "nn/linear.h"
#include "nn/mixers/mixer.h"

namespace comba::nn {

struct AttentionOptions {
  int64_t hidden_size = 0;   ///< D
  int64_t num_heads = 0;     ///< query heads, of dim D / num_heads
  int64_t num_kv_heads = 0;  ///< divides num_heads
  bool qkv_bias = false;
  std::optional<int64_t> window_size;          ///< tokens seen, the own one included; absent: all
  std::optional<double> rope_theta = 10000.0;  ///< base of the rotary positions; absent: none
};

/// Causal softmax attention with grouped key and value heads and, if asked for, rotary positions and a sliding window.
/// Parameters: {q,k,v,o}_proj.weight, and {q,k,v}_proj.bias with qkv_bias.
/// State: keys (rotated, if any are) and values of the tokens still seen, each [B, num_kv_heads, S, head dim].
class AttentionMixer : public Mixer {
 public:
  AttentionMixer(const AttentionOptions& options, const at::TensorOptions& tensor_options);

  at::Tensor forward(const at::Tensor& x, const TokenSpan& span, LayerState* state) override;
  LayerState initial_state(int64_t batch) const override;
  MixerFacts facts(int64_t num_tokens) const override;
  bool knows_positions() const override { return true; }

 private:
  at::Tensor attend(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) const;
  at::Tensor attend_packed(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                           const at::Tensor& cu_seqlens) const;

  AttentionOptions options_;
  int64_t head_dim_;
  std::shared_ptr<Linear> q_proj_, k_proj_, v_proj_, o_proj_;
};

}  // namespace comba::nn
