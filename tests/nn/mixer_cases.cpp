#include "mixer_cases.h"

#include <torch/utils.h>

#include "nn/mixers/attention.h"
#include "nn/mixers/gated_deltanet.h"
#include "nn/mixers/gated_slot_attention.h"
#include "nn/mixers/gla.h"
#include "nn/mixers/hgrn2.h"
#include "nn/mixers/mamba2.h"
#include "nn/mixers/miras.h"
#include "nn/mixers/retnet.h"
#include "nn/mixers/rwkv7.h"
#include "nn/mixers/ttt.h"

namespace comba::nn {
namespace {

using reference::Parameters;
constexpr int64_t kHeads = 2;

AttentionOptions attention_options() {
  return {.hidden_size = kWidth, .num_heads = 4, .num_kv_heads = 2, .window_size = {}};
}

AttentionOptions window_options() {
  AttentionOptions options = attention_options();
  options.window_size = 9;
  options.qkv_bias = true;
  return options;
}

LinearAttentionOptions linear_options(FeatureMap feature_map) {
  return {.hidden_size = kWidth,
          .num_heads = kHeads,
          .head_k_dim = 6,
          .head_v_dim = 10,
          .norm_eps = reference::kEps,
          .feature_map = feature_map};
}

InnerLearningOptions learning_options(double rate) {
  return {.hidden_size = kWidth, .num_heads = kHeads, .base_learning_rate = rate, .norm_eps = reference::kEps};
}

RWKV7Options rwkv7_options(int64_t layer) {
  return {.hidden_size = kWidth,
          .head_dim = 8,
          .layer = layer,
          .decay_low_rank_dim = 3,
          .gate_low_rank_dim = 4,
          .a_low_rank_dim = 5,
          .v_low_rank_dim = 6,
          .norm_eps = reference::kEps};
}

/// A later layer of an RWKV7, whose first layer has the values tanh(x).
class LaterRWKV7 : public RWKV7Mixer {
 public:
  using RWKV7Mixer::RWKV7Mixer;

  at::Tensor forward(const at::Tensor& x, const TokenSpan& span, LayerState* state) override {
    return mix(x, x.tanh(), span, state).y;
  }
};

/// The third of four layers, with the model's lower bounds among its own parameters.
std::shared_ptr<Mixer> make_hgrn2() {
  auto mixer = std::make_shared<HGRN2Mixer>(
      HGRN2Options{.hidden_size = kWidth, .num_heads = kHeads, .layer = 2, .norm_eps = reference::kEps},
      at::TensorOptions());
  mixer->set_lower_bounds(mixer->register_parameter("lower_bounds", at::empty({4, kWidth})));
  return mixer;
}

template <class Made, class... Options>
std::function<std::shared_ptr<Mixer>()> make(Options... options) {
  return [=] { return std::make_shared<Made>(options..., at::TensorOptions()); };
}

std::vector<MixerCase> cases() {
  using reference::Inner;
  CombaOptions bare = small_comba(), iplr = small_comba();
  bare.use_short_conv = false;
  iplr.delta_rule.rule = Rule::gated_delta;
  iplr.delta_rule.beta_scale = 2;
  const Mamba2Options mamba2{.hidden_size = kWidth,
                             .num_heads = 4,
                             .head_dim = 8,
                             .state_size = 5,
                             .num_groups = 2,
                             .norm_eps = reference::kEps};
  Mamba2Options other_mamba2 = mamba2;
  other_mamba2.use_conv_bias = false;
  other_mamba2.use_bias = true;
  const GatedSlotAttentionOptions slots{
      .hidden_size = kWidth, .num_heads = kHeads, .num_slots = 7, .norm_eps = reference::kEps};
  const auto mamba2_equations = [](const Parameters& p, const at::Tensor& x) {
    return reference::mamba2(p, x, 8, 5, 2);
  };
  const auto learning = [](Inner inner, double rate) {
    return [=](const Parameters& p, const at::Tensor& x) {
      return reference::inner_learning(p, x, kHeads, inner, rate, /*power=*/3);
    };
  };
  return {
      {"attention", make<AttentionMixer>(attention_options()),
       [](const Parameters& p, const at::Tensor& x) { return reference::attention(p, x, 4, 2, x.size(1)); }},
      {"sliding_window", make<AttentionMixer>(window_options()),
       [](const Parameters& p, const at::Tensor& x) { return reference::attention(p, x, 4, 2, 9); }},
      {"linear_attention", make<LinearAttentionMixer>(linear_options(FeatureMap::elu)),
       [](const Parameters& p, const at::Tensor& x) { return reference::linear_attention(p, x, kHeads); }},
      {"retnet", make<RetNetMixer>(linear_options(FeatureMap::identity)),
       [](const Parameters& p, const at::Tensor& x) { return reference::retnet(p, x, kHeads); }},
      {"gla", make<GLAMixer>(linear_options(FeatureMap::identity)),
       [](const Parameters& p, const at::Tensor& x) { return reference::gla(p, x, kHeads); }},
      {"hgrn2", make_hgrn2,
       [](const Parameters& p, const at::Tensor& x) { return reference::hgrn2(p, x, kHeads, /*layer=*/2); }},
      {"mamba2", make<Mamba2Mixer>(mamba2), mamba2_equations},
      {"mamba2_other_biases", make<Mamba2Mixer>(other_mamba2), mamba2_equations},
      {"gated_slot_attention", make<GatedSlotAttentionMixer>(slots),
       [](const Parameters& p, const at::Tensor& x) { return reference::gated_slot_attention(p, x, kHeads); }},
      {"gated_deltanet", make<CombaMixer>(as_gated_deltanet(small_comba(), false)), {}},
      {"rwkv7", make<RWKV7Mixer>(rwkv7_options(0)),
       [](const Parameters& p, const at::Tensor& x) { return reference::rwkv7(p, x, {}, 8); }},
      {"rwkv7_later_layer", make<LaterRWKV7>(rwkv7_options(1)),
       [](const Parameters& p, const at::Tensor& x) { return reference::rwkv7(p, x, x.tanh(), 8); }},
      {"ttt_linear", make<TTTLinearMixer>(learning_options(1)), learning(Inner::linear, 1)},
      {"ttt_mlp", make<TTTMLPMixer>(learning_options(0.5)), learning(Inner::mlp, 0.5)},
      {"miras", make<MirasMixer>(learning_options(0.2), /*power=*/3.0), learning(Inner::miras, 0.2)},
      {"comba_splr", make<CombaMixer>(small_comba()), {}},
      {"comba_without_convolution", make<CombaMixer>(bare), {}},
      {"comba_iplr", make<CombaMixer>(iplr), {}},
  };
}

}  // namespace

CombaOptions small_comba() {
  return {.hidden_size = kWidth,
          .num_heads = 2,
          .num_v_heads = 4,
          .head_k_dim = 16,
          .head_v_dim = 8,
          .norm_eps = reference::kEps,
          .delta_rule = {}};
}

void randomise(torch::nn::Module& module) {
  torch::manual_seed(11);
  const torch::NoGradGuard no_grad;
  for (at::Tensor& parameter : module.parameters()) parameter.normal_(0, 0.3);
}

const std::vector<MixerCase>& mixer_cases() {
  static const std::vector<MixerCase> all = cases();
  return all;
}

}  // namespace comba::nn
