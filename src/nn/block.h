#pragma once

#include <memory>
#include <optional>
#include <string>

#include "nn/mixers/mixer.h"
#include "nn/rms_norm.h"
#include "nn/swiglu.h"

namespace comba::nn {

/// One layer of a model.
class Layer : public torch::nn::Module {
 public:
  /// x [B, T, D] -> [B, T, D]; `state` as in Mixer. The dtype of x is that of the residual stream; mixer and MLP
  /// compute in `compute_dtype`, when it is given.
  virtual at::Tensor forward(const at::Tensor& x, const TokenSpan& span, LayerState* state,
                             std::optional<at::ScalarType> compute_dtype) = 0;

  virtual LayerState initial_state(int64_t batch) const = 0;

  /// As Mixer's.
  virtual bool knows_positions() const = 0;
};

/// What a block calls its parts.
struct BlockNames {
  std::string norm = "attn_norm";
  std::string mixer = "attn";
};

/// x += mixer(norm(x)), then x += mlp(norm(x)) where there is an MLP.
/// Parameters under attn_norm, attn (the mixer, whatever it is), mlp_norm and mlp; `names` may call the first two
/// otherwise.
class Block : public Layer {
 public:
  /// intermediate_size 0: no MLP and no second norm.
  Block(std::shared_ptr<Mixer> mixer, int64_t hidden_size, int64_t intermediate_size, double norm_eps,
        const at::TensorOptions& options, const BlockNames& names = {});

  at::Tensor forward(const at::Tensor& x, const TokenSpan& span, LayerState* state,
                     std::optional<at::ScalarType> compute_dtype = {}) override;

  LayerState initial_state(int64_t batch) const override { return attn_->initial_state(batch); }
  bool knows_positions() const override { return attn_->knows_positions(); }

 private:
  std::shared_ptr<RMSNorm> attn_norm_;
  std::shared_ptr<Mixer> attn_;
  std::shared_ptr<RMSNorm> mlp_norm_;
  std::shared_ptr<SwiGLU> mlp_;
};

}  // namespace comba::nn
