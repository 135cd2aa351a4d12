#include "nn/mixers/gla.h"

#include <torch/nn/modules/container/modulelist.h>

#include "nn/mixers/chunks.h"

namespace comba::nn {
namespace {

constexpr int64_t kLowRank = 16;
constexpr double kGateRoot = 16;

}  // namespace

GLAMixer::GLAMixer(const LinearAttentionOptions& options, const at::TensorOptions& tensor_options)
    : LinearAttentionMixer(options, tensor_options, /*is_gated=*/true) {
  const int64_t key_size = options.num_heads * options.head_k_dim;
  const auto gk_proj = register_module("gk_proj", std::make_shared<torch::nn::ModuleListImpl>());
  down_ = std::make_shared<Linear>(options.hidden_size, kLowRank, tensor_options);
  up_ = std::make_shared<Linear>(kLowRank, key_size, tensor_options, /*with_bias=*/true);
  gk_proj->push_back(down_);
  gk_proj->push_back(up_);
}

void GLAMixer::set_decay(DecayAttentionInputs& inputs, const at::Tensor& x) {
  const at::Tensor logit = up_->forward(down_->forward(x)).to(wide_dtype(x));
  inputs.decay_of = DecayOf::key;
  inputs.g = (at::log_sigmoid(logit) / kGateRoot).unflatten(-1, {options_.num_heads, -1});
}

MixerFacts GLAMixer::facts(int64_t num_tokens) const {
  MixerFacts facts = LinearAttentionMixer::facts(num_tokens);
  facts.rule = "S diag(a) + v k^T, o = S q";
  facts.rule_flops *= 5.0 / 4;
  return facts;
}

}  // namespace comba::nn
