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

at::Tensor Block::forward(const at::Tensor& x, const TokenSpan& span, LayerState* state,
                          std::optional<at::ScalarType> compute_dtype) {
  const auto narrow = [&](const at::Tensor& normed) { return compute_dtype ? normed.to(*compute_dtype) : normed; };
  const at::Tensor mixed = x + attn_->forward(narrow(attn_norm_->forward(x)), span, state);
  return mlp_ ? mixed + mlp_->forward(narrow(mlp_norm_->forward(mixed))) : mixed;
}

}  // namespace comba::nn
