#include "nn/rwkv7_block.h"

#include "nn/mixers/token_shift.h"

namespace comba::nn {

RWKV7FeedForward::RWKV7FeedForward(int64_t hidden_size, int64_t intermediate_size, const at::TensorOptions& options)
    : x_k_(register_parameter("x_k", at::empty({hidden_size}, options))),
      key_(register_module("key", std::make_shared<Linear>(hidden_size, intermediate_size, options))),
      value_(register_module("value", std::make_shared<Linear>(intermediate_size, hidden_size, options))) {}

at::Tensor RWKV7FeedForward::forward(const at::Tensor& x, const TokenSpan& span, at::Tensor* last) {
  const at::Tensor mixed = at::lerp(x, token_shift(x, span, last), x_k_.to(x.scalar_type()));
  return value_->forward(key_->forward(mixed).relu().square());
}

RWKV7Block::RWKV7Block(const RWKV7BlockOptions& options, const at::TensorOptions& tensor_options) : options_(options) {
  const int64_t size = options.mixer.hidden_size;
  const auto norm = [&](const char* name) {
    return register_module(name, std::make_shared<LayerNorm>(size, /*num_groups=*/1, options.mixer.norm_eps,
                                                             options.norm_bias, tensor_options));
  };
  if (options.mixer.layer == 0) pre_norm_ = norm("pre_norm");
  attn_norm_ = norm("attn_norm");
  attn_ = register_module("attn", std::make_shared<RWKV7Mixer>(options.mixer, tensor_options));
  ffn_norm_ = norm("ffn_norm");
  ffn_ = register_module("ffn", std::make_shared<RWKV7FeedForward>(size, options.intermediate_size, tensor_options));
}

Residual RWKV7Block::forward(const Residual& input, const TokenSpan& span, LayerState* state,
                             std::optional<at::ScalarType> compute_dtype) {
  const auto narrow = [&](const at::Tensor& wide) { return compute_dtype ? wide.to(*compute_dtype) : wide; };
  const at::Tensor x = input.sum();
  const int64_t size = options_.mixer.hidden_size;
  const bool is_first = pre_norm_ != nullptr;
  const at::Tensor residual = is_first ? pre_norm_->forward(x) : x.narrow(-1, 0, size);
  const at::Tensor first_v = is_first ? at::Tensor() : x.narrow(-1, size, size);
  const RWKV7Output mixed =
      attn_->mix(narrow(attn_norm_->forward(residual)), is_first ? first_v : narrow(first_v), span, state);
  const at::Tensor middle = residual + mixed.y;
  at::Tensor* last = state == nullptr ? nullptr : &state->tensors.back();
  const at::Tensor y = middle + ffn_->forward(narrow(ffn_norm_->forward(middle)), span, last);
  if (options_.is_last) return {.stream = y, .branch = {}};
  return {.stream = at::cat({y, (is_first ? mixed.v : first_v).to(y.scalar_type())}, -1), .branch = {}};
}

LayerState RWKV7Block::initial_state(int64_t batch) const {
  LayerState state = attn_->initial_state(batch);
  state.tensors.push_back(state.tensors[0].clone());
  return state;
}

}  // namespace comba::nn
