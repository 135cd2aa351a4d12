#include "nn/mixers/comba.h"

#include "libtorch/columns.h"
#include "nn/joined_linear.h"
#include "nn/mixers/delta_rule_core.h"

namespace comba::nn {

CombaMixer::CombaMixer(const CombaOptions& options, const at::TensorOptions& tensor_options) : options_(options) {
  const int64_t hidden_size = options.hidden_size;
  const int64_t key_size = options.num_heads * options.head_k_dim;
  const int64_t value_size = options.num_v_heads * options.head_v_dim;
  // Neighbours in memory and in the order of the parameters: on a GPU one product makes all projections of x, and one
  // call all convolutions.
  const int64_t gate_size = options.use_output_gate ? value_size : 0;
  const std::vector<at::Tensor> projections =
      empty_rows({key_size, key_size, value_size, gate_size, options.num_v_heads, options.num_v_heads}, {hidden_size},
                 tensor_options);
  const std::vector<at::Tensor> filters =
      empty_rows({key_size, key_size, value_size}, {1, options.conv_size}, tensor_options);
  const auto projection = [&](const char* name, size_t which) {
    return register_module(name, std::make_shared<Linear>(projections[which]));
  };
  const auto convolution = [&](const char* name, size_t which) {
    return register_module(name, std::make_shared<ShortConvolution>(filters[which]));
  };
  const auto per_head = [&](const char* name, int64_t heads) {
    return register_parameter(name, at::empty({heads}, tensor_options));
  };

  q_proj_ = projection("q_proj", 0);
  k_proj_ = projection("k_proj", 1);
  v_proj_ = projection("v_proj", 2);
  if (options.use_output_gate) g_proj_ = projection("g_proj", 3);
  b_proj_ = projection("b_proj", 4);
  a_proj_ = projection("a_proj", 5);
  A_log_ = per_head("A_log", options.num_v_heads);
  dt_bias_ = per_head("dt_bias", options.num_v_heads);
  if (options.use_output_correction) D_ = per_head("D", options.num_heads);
  if (options.use_inner_decay) decay_ = per_head("decay", options.num_heads);
  if (options.use_short_conv) {
    q_conv1d_ = convolution("q_conv1d", 0);
    k_conv1d_ = convolution("k_conv1d", 1);
    v_conv1d_ = convolution("v_conv1d", 2);
  }
  o_norm_ = register_module("o_norm", std::make_shared<GatedRMSNorm>(options.head_v_dim, options.norm_eps,
                                                                     options.gate_function, tensor_options));
  o_proj_ = register_module("o_proj", std::make_shared<Linear>(value_size, hidden_size, tensor_options));
}

CombaMixer::Projections CombaMixer::project(const at::Tensor& x) {
  if (!x.is_cuda() || q_proj_->is_int8()) {
    // In this order, the reverse of that in which autograd adds up their gradients of x.
    return {.q = q_proj_->forward(x),
            .k = k_proj_->forward(x),
            .v = v_proj_->forward(x),
            .beta_logit = b_proj_->forward(x),
            .a = a_proj_->forward(x),
            .gate = g_proj_ ? g_proj_->forward(x) : at::Tensor()};
  }
  std::vector<at::Tensor> weights = {q_proj_->weight(), k_proj_->weight(), v_proj_->weight()};
  if (g_proj_) weights.push_back(g_proj_->weight());
  weights.push_back(b_proj_->weight());
  weights.push_back(a_proj_->weight());
  const std::vector<at::Tensor> y = joined_linear(x, weights);
  return {.q = y[0],
          .k = y[1],
          .v = y[2],
          .beta_logit = y[weights.size() - 2],
          .a = y[weights.size() - 1],
          .gate = g_proj_ ? y[3] : at::Tensor()};
}

void CombaMixer::convolve(Projections& y, const TokenSpan& span, LayerState* state) {
  const std::vector<at::Tensor> inputs = {y.q, y.k, y.v};
  std::vector<at::Tensor> outputs;
  if (!q_conv1d_) {
    for (const at::Tensor& input : inputs) outputs.push_back(at::silu(input));
  } else if (state == nullptr) {
    outputs =
        short_convolutions(inputs, {q_conv1d_->weight(), k_conv1d_->weight(), v_conv1d_->weight()}, span.cu_seqlens);
  } else {
    const auto convolutions = {q_conv1d_, k_conv1d_, v_conv1d_};
    for (const auto& convolution : convolutions) {
      const size_t which = outputs.size();
      outputs.push_back(convolution->forward(inputs[which], span, &state->tensors[which]));
    }
  }
  y.q = outputs[0];
  y.k = outputs[1];
  y.v = outputs[2];
}

at::Tensor CombaMixer::forward(const at::Tensor& x, const TokenSpan& span, LayerState* state) {
  const std::vector<int64_t> key_shape = {x.size(0), x.size(1), options_.num_heads, options_.head_k_dim};
  const std::vector<int64_t> value_shape = {x.size(0), x.size(1), options_.num_v_heads, options_.head_v_dim};
  Projections y = project(x);
  convolve(y, span, state);

  // Rates and strengths stay fp32 in a 16-bit model: they compound over thousands of tokens.
  const auto wide = [](const at::Tensor& parameter) { return parameter.to(at::kFloat); };
  const auto correction_factor = [&] { return options_.learn_correction_factor ? wide(D_) : wide(D_).detach(); };
  const DeltaRuleTensors inputs{
      .q = y.q.view(key_shape),    // [B, T, H, K]
      .k = y.k.view(key_shape),    // [B, T, H, K]
      .v = y.v.view(value_shape),  // [B, T, HV, V]
      .p = {},
      .b = options_.use_inner_decay ? at::sigmoid(wide(decay_)) : at::Tensor(),
      .d = options_.use_output_correction ? correction_factor() : at::Tensor(),
      .beta = {},
      .beta_logit = y.beta_logit,  // [B, T, HV]
      .g = {},
      .a = y.a,  // [B, T, HV]
      .A_log = wide(A_log_),
      .dt_bias = wide(dt_bias_),
      .initial_state = {},
      .cu_seqlens = {},
  };
  if (observer_) observer_(inputs);
  const at::Tensor* recurrent_state = state == nullptr ? nullptr : &state->tensors.back();
  const at::Tensor o = delta_rule_with_state(inputs, options_.delta_rule, span, recurrent_state);  // [B, T, HV, V]

  const at::Tensor gate = g_proj_ ? y.gate.view(value_shape) : at::Tensor();
  return o_proj_->forward(o_norm_->forward(o, gate).flatten(2));
}

LayerState CombaMixer::initial_state(int64_t batch) const {
  LayerState state;
  if (options_.use_short_conv) {
    for (const auto& convolution : {q_conv1d_, k_conv1d_, v_conv1d_}) {
      state.tensors.push_back(convolution->initial_tail(batch));
    }
  }
  state.tensors.push_back(at::zeros({batch, options_.num_v_heads, options_.head_k_dim, options_.head_v_dim},
                                    A_log_.options().dtype(at::kFloat).requires_grad(false)));
  return state;
}

MixerFacts CombaMixer::facts(int64_t) const {
  const bool is_comba = options_.delta_rule.rule == Rule::comba;
  const std::string correction = options_.use_output_correction ? "(q - d k)" : "q";
  const std::string strength = options_.use_inner_decay ? "b beta" : "beta";
  return {
      .rule = is_comba ? "S (a - " + strength + " k k^T) + beta v k^T, o = S " + correction
                       : "S a (I - " + strength + " k k^T) + beta v k^T, o = S " + correction,
      .closed_loop = true,
      .state_bytes = state_bytes(initial_state(1)),
      // decay, S k, the write, S q
      .rule_flops = 7.0 * static_cast<double>(options_.num_v_heads * options_.head_k_dim * options_.head_v_dim),
  };
}

}  // namespace comba::nn
