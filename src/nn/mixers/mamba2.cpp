#include "nn/mixers/mamba2.h"

#include "libtorch/short_convolution.h"
#include "nn/mixers/chunks.h"
#include "nn/mixers/decay_attention.h"
#include "nn/mixers/packed_sequences.h"

namespace comba::nn {

BiasedConvolution::BiasedConvolution(int64_t channels, int64_t width, bool with_bias, const at::TensorOptions& options)
    : weight_(register_parameter("weight", at::empty({channels, 1, width}, options))) {
  if (with_bias) bias_ = register_parameter("bias", at::empty({channels}, options));
}

at::Tensor BiasedConvolution::forward(const at::Tensor& x, const TokenSpan& span, at::Tensor* tail) {
  at::Tensor y;
  if (!bias_.defined()) {
    y = short_convolution(x, weight_, tail == nullptr ? at::Tensor() : *tail, span.cu_seqlens);
  } else {
    const auto wide = wide_dtype(x);
    const at::Tensor weight = weight_.to(wide), bias = bias_.to(wide);
    const at::Tensor before = tail == nullptr ? initial_tail(x.size(0)) : tail->clone();
    y = over_sequences(span.cu_seqlens, x.size(1), /*dim=*/1, [&](int64_t begin, int64_t length) {
      const at::Tensor inputs = at::cat({before.to(wide), x.narrow(1, begin, length).to(wide)}, 1);
      at::Tensor sum = bias;
      for (int64_t j = 0; j < weight.size(2); ++j) sum = sum + inputs.narrow(1, j, length) * weight.select(2, j).t();
      return at::silu(sum).to(x.scalar_type());
    });
  }
  if (tail != nullptr) tail->copy_(at::cat({*tail, x.detach()}, 1).narrow(1, x.size(1), tail->size(1)));
  return y;
}

at::Tensor BiasedConvolution::initial_tail(int64_t batch) const {
  return at::zeros({batch, weight_.size(2) - 1, weight_.size(0)}, weight_.options().requires_grad(false));
}

Mamba2Mixer::Mamba2Mixer(const Mamba2Options& options, const at::TensorOptions& tensor_options) : options_(options) {
  const int64_t inner = options.num_heads * options.head_dim;
  const int64_t convolved = inner + 2 * options.num_groups * options.state_size;
  const auto per_head = [&](const char* name) {
    return register_parameter(name, at::empty({options.num_heads}, tensor_options));
  };
  in_proj_ =
      register_module("in_proj", std::make_shared<Linear>(options.hidden_size, inner + convolved + options.num_heads,
                                                          tensor_options, options.use_bias));
  conv1d_ = register_module("conv1d", std::make_shared<BiasedConvolution>(convolved, options.conv_size,
                                                                          options.use_conv_bias, tensor_options));
  A_log_ = per_head("A_log");
  D_ = per_head("D");
  dt_bias_ = per_head("dt_bias");
  norm_ = register_module("norm", std::make_shared<RMSNorm>(inner, options.norm_eps, tensor_options));
  out_proj_ = register_module("out_proj",
                              std::make_shared<Linear>(inner, options.hidden_size, tensor_options, options.use_bias));
}

at::Tensor Mamba2Mixer::forward(const at::Tensor& x, const TokenSpan& span, LayerState* state) {
  const int64_t inner = options_.num_heads * options_.head_dim;
  const int64_t group_size = options_.num_groups * options_.state_size;
  const auto wide = wide_dtype(x);
  const std::vector<at::Tensor> parts =
      in_proj_->forward(x).split_with_sizes({inner, inner + 2 * group_size, options_.num_heads}, -1);
  const at::Tensor convolved = conv1d_->forward(parts[1], span, state == nullptr ? nullptr : &state->tensors[0]);
  const std::vector<at::Tensor> vkq = convolved.split_with_sizes({inner, group_size, group_size}, -1);
  const at::Tensor v = vkq[0].unflatten(-1, {options_.num_heads, -1}).to(wide);  // [B, T, H, V]
  const auto per_head = [&](const at::Tensor& groups) {                          // -> [B, T, H, K]
    return groups.unflatten(-1, {options_.num_groups, -1})
        .repeat_interleave(options_.num_heads / options_.num_groups, /*dim=*/2);
  };
  const at::Tensor step = at::softplus(parts[2].to(wide) + dt_bias_.to(wide));  // [B, T, H]
  const DecayAttentionInputs inputs{
      .q = per_head(vkq[2]),
      .k = per_head(vkq[1]),
      .v = v * step.unsqueeze(-1),
      .g = -A_log_.to(wide).exp() * step,
      .decay_of = DecayOf::head,
  };
  const at::Tensor* recurrent_state = state == nullptr ? nullptr : &state->tensors[1];
  const at::Tensor o = decay_attention_with_state(inputs, span, recurrent_state) + D_.to(wide).unsqueeze(-1) * v;
  return out_proj_->forward(norm_->forward(o.flatten(2) * at::silu(parts[0].to(wide))).to(x.scalar_type()));
}

LayerState Mamba2Mixer::initial_state(int64_t batch) const {
  const auto options = A_log_.options().dtype(at::kFloat).requires_grad(false);
  return {.tensors = {conv1d_->initial_tail(batch),
                      at::zeros({batch, options_.num_heads, options_.state_size, options_.head_dim}, options)}};
}

MixerFacts Mamba2Mixer::facts(int64_t) const {
  return {
      .rule = "a S + dt v k^T, o = S q + D v",
      .closed_loop = false,
      .state_bytes = state_bytes(initial_state(1)),
      .rule_flops = 5.0 * static_cast<double>(options_.num_heads * options_.head_dim * options_.state_size),
  };
}

}  // namespace comba::nn
