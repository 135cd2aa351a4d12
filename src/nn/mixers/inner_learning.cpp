#include "nn/mixers/inner_learning.h"

#include "nn/mixers/chunks.h"
#include "nn/mixers/packed_sequences.h"

namespace comba::nn {
namespace {

constexpr double kL2NormEps = 1e-6;

at::Tensor l2_normalised(const at::Tensor& x) {
  return x * (x.square().sum(-1, /*keepdim=*/true) + kL2NormEps).rsqrt();
}

/// Some tokens of all.
InnerTokens part(const InnerTokens& all, int64_t begin, int64_t length) {
  const auto of = [&](const at::Tensor& x) { return x.narrow(2, begin, length); };
  return {of(all.q), of(all.k), of(all.v), of(all.rate), all.log.defined() ? of(all.log) : at::Tensor()};
}

}  // namespace

InnerLearningMixer::InnerLearningMixer(const InnerLearningOptions& options, const at::TensorOptions& tensor_options,
                                       bool decays)
    : options_(options) {
  const int64_t size = options.hidden_size;
  const auto linear = [&](const char* name, int64_t out, bool with_bias) {
    return register_module(name, std::make_shared<Linear>(size, out, tensor_options, with_bias));
  };
  for (const char* name : {"q_proj", "k_proj", "v_proj"}) qkv_.push_back(linear(name, size, false));
  if (options.use_short_conv) {
    for (const char* name : {"q_conv1d", "k_conv1d", "v_conv1d"}) {
      convolutions_.push_back(
          register_module(name, std::make_shared<ShortConvolution>(size, options.conv_size, tensor_options)));
    }
  }
  lr_proj_ = linear("lr_proj", options.num_heads, /*with_bias=*/true);
  if (decays) {
    a_proj_ = linear("a_proj", options.num_heads, /*with_bias=*/false);
    A_log_ = register_parameter("A_log", at::empty({options.num_heads}, tensor_options));
    dt_bias_ = register_parameter("dt_bias", at::empty({options.num_heads}, tensor_options));
  }
  o_norm_ = register_module("o_norm", std::make_shared<RMSNorm>(size, options.norm_eps, tensor_options));
  o_proj_ = linear("o_proj", size, false);
}

at::Tensor InnerLearningMixer::project(size_t which, const at::Tensor& x, const TokenSpan& span, LayerState* state) {
  const at::Tensor projected = qkv_[which]->forward(x);
  at::Tensor* tail = state == nullptr ? nullptr : &state->tensors[which];
  const at::Tensor y =
      convolutions_.empty() ? at::silu(projected) : convolutions_[which]->forward(projected, span, tail);
  return y.to(wide_dtype(x)).unflatten(-1, {options_.num_heads, -1}).transpose(1, 2);
}

at::Tensor InnerLearningMixer::forward(const at::Tensor& x, const TokenSpan& span, LayerState* state) {
  const auto wide = wide_dtype(x);
  const auto per_head = [&](const at::Tensor& scalars) { return scalars.transpose(1, 2).unsqueeze(-1); };
  InnerTokens tokens{
      .q = l2_normalised(project(0, x, span, state)),
      .k = l2_normalised(project(1, x, span, state)),
      .v = project(2, x, span, state),
      .rate = per_head(options_.base_learning_rate * lr_proj_->forward(x).to(wide).sigmoid()),
      .log = {},
  };
  if (a_proj_) {
    const at::Tensor step = at::softplus(a_proj_->forward(x).to(wide) + dt_bias_.to(wide));
    tokens.log = per_head((-A_log_.to(wide).exp() * step).clamp_min(kSmallestLogDecay));  // summed up by learn_all
  }
  at::Tensor o;  // [B, H, T, V]
  if (state == nullptr) {
    o = over_sequences(span.cu_seqlens, x.size(1), /*dim=*/2, [&](int64_t begin, int64_t length) {
      std::vector<at::Tensor> start = first_weights(x.size(0), wide), now = start;
      return learn_all(part(tokens, begin, length), /*offset=*/0, start, now);
    });
  } else {
    const auto begin = state->tensors.begin() + static_cast<std::ptrdiff_t>(num_tails());
    const auto middle = begin + (state->tensors.end() - begin) / 2;
    std::vector<at::Tensor> start(begin, middle), now(middle, state->tensors.end());
    // At the first token from the parameters, which are to have gradients.
    if (span.first_position == 0) start = now = first_weights(x.size(0), wide);
    o = learn_all(tokens, span.first_position % options_.mini_batch_size, start, now);
    // New tensors: backward may still need the old ones.
    for (size_t i = 0; i < start.size(); ++i) {
      state->tensors[num_tails() + i] = start[i].detach().to(at::kFloat, false, /*copy=*/true);
      state->tensors[num_tails() + start.size() + i] = now[i].detach().to(at::kFloat, false, /*copy=*/true);
    }
  }
  return o_proj_->forward(o_norm_->forward(o.transpose(1, 2).flatten(2)).to(x.scalar_type()));
}

at::Tensor InnerLearningMixer::learn_all(const InnerTokens& tokens, int64_t offset, std::vector<at::Tensor>& start,
                                         std::vector<at::Tensor>& now) const {
  std::vector<at::Tensor> outputs;
  int64_t length = 0;
  for (int64_t begin = 0; begin < tokens.q.size(2); begin += length) {
    if (offset == 0) start = now;
    length = std::min(options_.mini_batch_size - offset, tokens.q.size(2) - begin);
    InnerTokens few = part(tokens, begin, length);
    if (few.log.defined()) few.log = few.log.cumsum(2);
    outputs.push_back(learn(few, start, now));
    offset = (offset + length) % options_.mini_batch_size;
  }
  return at::cat(outputs, 2);
}

LayerState InnerLearningMixer::initial_state(int64_t batch) const {
  const at::NoGradGuard no_grad;
  LayerState state;
  for (const auto& convolution : convolutions_) state.tensors.push_back(convolution->initial_tail(batch));
  for (int twice = 0; twice < 2; ++twice) {
    for (const at::Tensor& weight : first_weights(batch, at::kFloat)) {
      state.tensors.push_back(weight.clone(at::MemoryFormat::Contiguous));
    }
  }
  return state;
}

}  // namespace comba::nn
