#include "nn/mixers/attention.h"

#include "libtorch/positions.h"
#include "nn/rotary_embedding.h"

namespace comba::nn {

AttentionMixer::AttentionMixer(const AttentionOptions& options, const at::TensorOptions& tensor_options)
    : options_(options), head_dim_(options.hidden_size / options.num_heads) {
  const auto linear = [&](const char* name, int64_t in, int64_t out, bool with_bias) {
    return register_module(name, std::make_shared<Linear>(in, out, tensor_options, with_bias));
  };
  const int64_t kv_size = options.num_kv_heads * head_dim_;
  q_proj_ = linear("q_proj", options.hidden_size, options.hidden_size, options.qkv_bias);
  k_proj_ = linear("k_proj", options.hidden_size, kv_size, options.qkv_bias);
  v_proj_ = linear("v_proj", options.hidden_size, kv_size, options.qkv_bias);
  o_proj_ = linear("o_proj", options.hidden_size, options.hidden_size, /*with_bias=*/false);
}

at::Tensor AttentionMixer::forward(const at::Tensor& x, const TokenSpan& span, LayerState* state) {
  const int64_t num_tokens = x.size(1);
  const at::Tensor positions = span.cu_seqlens.defined()
                                   ? positions_in_sequences(span.cu_seqlens, num_tokens)
                                   : at::arange(num_tokens, x.options().dtype(at::kLong)) + span.first_position;
  const auto split_heads = [&](const at::Tensor& projected) {
    return projected.unflatten(-1, {-1, head_dim_}).transpose(1, 2);
  };
  const auto rotated = [&](const at::Tensor& heads) {
    return options_.rope_theta ? rotary_embedding(heads, positions, *options_.rope_theta) : heads;
  };
  const at::Tensor q = rotated(split_heads(q_proj_->forward(x)));
  at::Tensor k = rotated(split_heads(k_proj_->forward(x)));
  at::Tensor v = split_heads(v_proj_->forward(x));  // [B, num_kv_heads, T, head dim]
  if (state != nullptr) {
    k = at::cat({state->tensors[0], k}, /*dim=*/2);
    v = at::cat({state->tensors[1], v}, /*dim=*/2);
    // The next token sees itself and window_size - 1 others.
    const int64_t remembered = std::min(k.size(2), options_.window_size.value_or(k.size(2) + 1) - 1);
    state->tensors[0] = k.detach().narrow(2, k.size(2) - remembered, remembered);
    state->tensors[1] = v.detach().narrow(2, v.size(2) - remembered, remembered);
  }
  const at::Tensor o = span.cu_seqlens.defined() ? attend_packed(q, k, v, span.cu_seqlens) : attend(q, k, v);
  return o_proj_->forward(o.transpose(1, 2).flatten(2));
}

at::Tensor AttentionMixer::attend(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) const {
  const int64_t num_queries = q.size(2);
  const int64_t num_keys = k.size(2);
  // The queries are the last ones of the keys' tokens. Query i stands at num_keys - num_queries + i.
  std::optional<at::Tensor> seen;
  const bool whole_triangle = num_queries == num_keys && num_keys <= options_.window_size.value_or(num_keys);
  if (!whole_triangle) {
    const auto ones = at::ones({num_queries, num_keys}, q.options().dtype(at::kBool));
    const int64_t own = num_keys - num_queries;
    seen = ones.tril(own);
    if (options_.window_size) seen = seen->logical_and(ones.triu(own - *options_.window_size + 1));
  }
  return at::scaled_dot_product_attention(q, k, v, seen, /*dropout_p=*/0.0, /*is_causal=*/whole_triangle,
                                          /*scale=*/std::nullopt, /*enable_gqa=*/true);
}

at::Tensor AttentionMixer::attend_packed(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                         const at::Tensor& cu_seqlens) const {
  const std::vector<int64_t> borders = sequence_borders(cu_seqlens, q.size(2));
  std::vector<at::Tensor> outputs;
  for (size_t n = 0; n + 1 < borders.size(); ++n) {
    const int64_t begin = borders[n], length = borders[n + 1] - begin;
    if (length == 0) continue;
    const auto sequence = [&](const at::Tensor& all) { return all.narrow(2, begin, length); };
    outputs.push_back(attend(sequence(q), sequence(k), sequence(v)));
  }
  return outputs.empty() ? at::zeros_like(q) : at::cat(outputs, /*dim=*/2);
}

LayerState AttentionMixer::initial_state(int64_t batch) const {
  const auto none = at::zeros({batch, options_.num_kv_heads, 0, head_dim_}, k_proj_->options());
  return {.tensors = {none, none}};
}

MixerFacts AttentionMixer::facts(int64_t num_tokens) const {
  const int64_t seen = std::min(num_tokens, options_.window_size.value_or(num_tokens));
  const int64_t kept = std::min(num_tokens, options_.window_size.value_or(num_tokens + 1) - 1);
  const auto element_bytes = static_cast<int64_t>(initial_state(1).tensors[0].element_size());
  return {
      .rule =
          options_.window_size ? "o = softmax(q K^T) V over the last tokens" : "o = softmax(q K^T) V over all tokens",
      .closed_loop = false,
      .state_bytes = 2 * kept * options_.num_kv_heads * head_dim_ * element_bytes,
      .rule_flops = 4.0 * static_cast<double>(seen * options_.hidden_size),
  };
}

}  // namespace comba::nn
