#pragma once

#include <memory>
#include <optional>

#include "nn/block.h"
#include "nn/layer_norm.h"
#include "nn/mixers/rwkv7.h"

namespace comba::nn {

/// RWKV7's channel mixing: W_value relu(W_key (x + (x' - x) x_k))^2, x' being the token before.
/// Parameters: x_k [D], key.weight [F, D], value.weight [D, F].
class RWKV7FeedForward : public torch::nn::Module {
 public:
  RWKV7FeedForward(int64_t hidden_size, int64_t intermediate_size, const at::TensorOptions& options);

  /// `last` [B, 1, D], when given, is the last token's input, and is advanced in place.
  at::Tensor forward(const at::Tensor& x, const TokenSpan& span, at::Tensor* last);

 private:
  at::Tensor x_k_;
  std::shared_ptr<Linear> key_, value_;
};

struct RWKV7BlockOptions {
  RWKV7Options mixer;
  int64_t intermediate_size = 0;  ///< F
  bool norm_bias = true;
  bool is_last = false;
};

/// One layer of RWKV7: as Block, with layer norms, one more of them before the first layer, and its own channel mixing.
/// The stream between two layers has 2 D channels: the residual, and beside it the first layer's values.
/// Parameters under pre_norm (in the first layer), attn_norm, attn, ffn_norm and ffn.
/// State: the mixer's, then the last token's input to the channel mixing [B, 1, D].
class RWKV7Block : public Layer {
 public:
  RWKV7Block(const RWKV7BlockOptions& options, const at::TensorOptions& tensor_options);

  /// x [B, T, D] in the first layer and [B, T, 2 D] in the others -> [B, T, 2 D], of the last layer [B, T, D]
  Residual forward(const Residual& input, const TokenSpan& span, LayerState* state,
                   std::optional<at::ScalarType> compute_dtype) override;

  LayerState initial_state(int64_t batch) const override;
  bool knows_positions() const override { return false; }

 private:
  RWKV7BlockOptions options_;
  std::shared_ptr<LayerNorm> pre_norm_, attn_norm_, ffn_norm_;
  std::shared_ptr<RWKV7Mixer> attn_;
  std::shared_ptr<RWKV7FeedForward> ffn_;
};

}  // namespace comba::nn
