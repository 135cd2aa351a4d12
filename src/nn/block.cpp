#include "nn/block.h"

namespace comba::nn {

Block::Block(std::shared_ptr<Mixer> mixer, int64_t hidden_size, int64_t intermediate_size, double norm_eps,
             const at::TensorOptions& options, const BlockNames& names)
    : attn_norm_(register_module(names.norm, std::make_shared<RMSNorm>(hidden_size, norm_eps, options))),
      attn_(register_module(names.mixer, std::move(mixer))) {
  if (intermediate_size == 0) return;
  mlp_norm_ = register_module("mlp_norm", std::make_shared<RMSNorm>(hidden_size, norm_eps, options));
  mlp_ = register_module("mlp", std::make_shared<SwiGLU>(hidden_size, intermediate_size, options));
}

Residual Block::forward(const Residual& x, const TokenSpan& span, LayerState* state,
                        std::optional<at::ScalarType> compute_dtype) {
  const at::ScalarType dtype = compute_dtype.value_or(x.stream.scalar_type());
  const NormedStream before = attn_norm_->forward(x.stream, x.branch, dtype);
  const at::Tensor mixed = attn_->forward(before.normed, span, state);
  if (!mlp_) return {before.stream, mixed};
  const NormedStream between = mlp_norm_->forward(before.stream, mixed, dtype);
  return {between.stream, mlp_->forward(between.normed)};
}

}  // namespace comba::nn
