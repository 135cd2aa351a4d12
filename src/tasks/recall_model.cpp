#include "tasks/recall_model.h"

#include <ATen/CPUGeneratorImpl.h>
#include <torch/nn/modules/container/modulelist.h>

#include <cmath>

#include "models/initialization.h"
#include "models/make_mixer.h"
#include "nn/mixers/attention.h"
#include "tasks/gated_convolution.h"

namespace comba::tasks {
namespace {

constexpr double kEmbeddingDropout = 0.1;

/// Parameters: weight [D], bias [D].
class LayerNorm : public torch::nn::Module {
 public:
  LayerNorm(std::int64_t dim, double eps)
      : weight_(register_parameter("weight", at::empty({dim}))),
        bias_(register_parameter("bias", at::empty({dim}))),
        eps_(eps) {}

  at::Tensor forward(const at::Tensor& x) { return at::layer_norm(x, weight_.sizes(), weight_, bias_, eps_); }

 private:
  at::Tensor weight_, bias_;
  double eps_;
};

std::shared_ptr<nn::Mixer> make_task_mixer(const models::ModelConfig& config, std::int64_t layer) {
  if (config.model_type != "transformer") return models::make_mixer(config, layer, {});
  const nn::AttentionOptions options{.hidden_size = config.hidden_size,
                                     .num_heads = config.attn->num_heads,
                                     .num_kv_heads = config.attn->num_kv_heads,
                                     .qkv_bias = config.attn->qkv_bias,
                                     .window_size = config.attn->window_size,
                                     .rope_theta = std::nullopt};
  return std::make_shared<nn::AttentionMixer>(options, at::TensorOptions());
}

bool is_filter(const std::string& name) {
  return name.ends_with("conv1d.weight") || name.ends_with("convolution.weight") || name.ends_with("convolution.bias");
}

}  // namespace

/// A gated convolution or a mixer, between two norms.
class RecallModel::Layer : public torch::nn::Module {
 public:
  Layer(const models::ModelConfig& config, std::int64_t layer) {
    const auto norm = [&](const char* name) {
      return register_module(name, std::make_shared<LayerNorm>(config.hidden_size, config.norm_eps));
    };
    mixer_norm_ = norm("mixer_norm");
    if (layer == 0) {
      convolution_ =
          register_module("mixer", std::make_shared<GatedConvolution>(config.hidden_size, at::TensorOptions()));
    } else {
      mixer_ = register_module("mixer", make_task_mixer(config, layer));
    }
    state_norm_ = norm("state_norm");
  }

  at::Tensor forward(const at::Tensor& x) {
    const at::Tensor normed = mixer_norm_->forward(x);
    const at::Tensor mixed = x + (mixer_ ? mixer_->forward(normed, {}, nullptr) : convolution_->forward(normed));
    return mixed + state_norm_->forward(mixed);
  }

  nn::Mixer* mixer() { return mixer_.get(); }

 private:
  std::shared_ptr<LayerNorm> mixer_norm_, state_norm_;
  std::shared_ptr<GatedConvolution> convolution_;  // one of the two
  std::shared_ptr<nn::Mixer> mixer_;
};

RecallModel::RecallModel(const models::ModelConfig& config)
    : config_(config), embedding_(register_parameter("embedding", at::empty({config.vocab_size, config.hidden_size}))) {
  const auto layers = register_module("layers", std::make_shared<torch::nn::ModuleListImpl>());
  for (std::int64_t layer = 0; layer < config.num_hidden_layers; ++layer) {
    layers_.push_back(std::make_shared<Layer>(config, layer));
    layers->push_back(layers_.back());
  }
  final_norm_ = register_module("final_norm", std::make_shared<LayerNorm>(config.hidden_size, config.norm_eps));
}

RecallModel::~RecallModel() = default;

void RecallModel::initialize(std::uint64_t seed) {
  models::initialize_parameters(*this, config_, seed);
  const torch::NoGradGuard no_grad;
  const at::Generator generator = at::make_generator<at::CPUGeneratorImpl>(seed + 1);
  for (auto& parameter : named_parameters()) {
    if (!is_filter(parameter.key())) continue;
    const bool is_bias = parameter.value().dim() == 1;
    const auto width = static_cast<double>(is_bias ? GatedConvolution::kWidth : parameter.value().size(2));
    parameter.value().uniform_(-1 / std::sqrt(width), 1 / std::sqrt(width), generator);
  }
}

at::Tensor RecallModel::forward(const at::Tensor& inputs, const at::Tensor& positions) {
  at::Tensor x = at::dropout(at::embedding(embedding_, inputs), kEmbeddingDropout, is_training());  // [B, T, D]
  for (const auto& layer : layers_) x = layer->forward(x);
  const at::Tensor index = positions.unsqueeze(-1).expand({-1, -1, x.size(2)});
  const at::Tensor told = x.gather(1, index);  // [B, P, D]
  return at::linear(static_cast<LayerNorm&>(*final_norm_).forward(told), embedding_);
}

std::int64_t RecallModel::state_bytes(std::int64_t length) {
  const torch::NoGradGuard no_grad;
  const at::Tensor x = at::zeros({1, length, config_.hidden_size}, embedding_.options());
  std::int64_t bytes = 0;
  for (const auto& layer : layers_) {
    if (layer->mixer() == nullptr) continue;
    nn::LayerState state = layer->mixer()->initial_state(1);
    layer->mixer()->forward(x, {}, &state);
    for (const at::Tensor& tensor : state.tensors) bytes += static_cast<std::int64_t>(tensor.nbytes());
  }
  return bytes;
}

std::int64_t RecallModel::num_parameters() const {
  std::int64_t count = 0;
  for (const at::Tensor& parameter : parameters()) count += parameter.numel();
  return count;
}

}  // namespace comba::tasks
