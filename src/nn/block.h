#pragma once

#include <memory>
#include <optional>
#include <string>

#include "nn/mixers/mixer.h"
#include "nn/rms_norm.h"
#include "nn/swiglu.h"

namespace comba::nn {

/// The residual stream between two layers, and what the last branch adds to it: the next norm does that on its way.
struct Residual {
  at::Tensor stream;  ///< [B, T, D]
  at::Tensor branch;  ///< [B, T, D]  undefined where there is none, as behind the embedding

  at::Tensor sum() const { return branch.defined() ? stream + branch : stream; }
};

/// One layer of a model.
class Layer : public torch::nn::Module {
 public:
  /// `state` as in Mixer. The dtype of x.stream is that of the residual stream; mixer and MLP compute, and give their
  /// branches, in `compute_dtype`, when it is given.
  virtual Residual forward(const Residual& x, const TokenSpan& span, LayerState* state,
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

  Residual forward(const Residual& x, const TokenSpan& span, LayerState* state,
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
