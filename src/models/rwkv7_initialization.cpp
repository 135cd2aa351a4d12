#include "models/rwkv7_initialization.h"

#include <cmath>
#include <map>

namespace comba::models {
namespace {

/// The number of "model.layers.7.attn.x_r"; -1 outside of the layers.
int64_t layer_of(const std::string& name) {
  const std::string before = "layers.";
  const size_t found = name.find(before);
  return found == std::string::npos ? -1 : std::stoll(name.substr(found + before.size()));
}

/// The values of one layer's vectors, each [D]: the mixer's, whatever the layer calls it, and the MLP's.
std::map<std::string, at::Tensor> vectors(int64_t layer, const ModelConfig& config) {
  const auto size = static_cast<double>(config.hidden_size), num_layers = static_cast<double>(config.num_hidden_layers);
  const double depth = static_cast<double>(layer) / std::max(num_layers - 1, 1.0);  // 0 .. 1
  const double left = 1 - static_cast<double>(layer) / num_layers;                  // 1 .. nearly 0
  const at::Tensor channel = at::arange(config.hidden_size, at::kDouble);
  const at::Tensor share = channel / size;                     // 0 .. nearly 1
  const at::Tensor along = channel / std::max(size - 1, 1.0);  // 0 .. 1
  const double half = std::max(static_cast<double>(config.head_dim - 1) / 2, 0.5);
  const at::Tensor in_head = (channel.remainder(config.head_dim) - half) / half;  // -1 .. 1
  const at::Tensor zigzag = in_head * in_head.abs();
  const at::Tensor slope = along - 0.5;
  const auto shift = [&](double power) { return 1 - share.pow(power * left); };
  return {
      {"x_r", shift(0.2)},
      {"x_w", shift(0.9)},
      {"x_k", shift(0.7)},
      {"x_v", shift(0.7)},
      {"x_a", shift(0.9)},
      {"x_g", shift(0.2)},
      {"ffn.x_k", 1 - share.pow(std::pow(left, 4))},
      {"k_k", 0.71 - 0.1 * slope},
      {"k_a", at::full_like(share, 1.02)},
      {"r_k", at::full_like(share, -0.04)},
      {"w_lora.lora.2.bias", -5.5 + 6 * along.pow(1 + std::pow(depth, 0.3)) + 2.5 * zigzag},
      {"a_lora.lora.2.bias", -0.19 + 0.3 * zigzag + 0.4 * slope},
      {"v_lora.lora.2.bias", 0.73 - 0.4 * slope},
      {"g_norm.weight", at::full_like(share, std::pow(static_cast<double>(layer + 1) / num_layers, 0.7))},
  };
}

}  // namespace

void set_rwkv7_vectors(torch::nn::Module& model, const ModelConfig& config) {
  const torch::NoGradGuard no_grad;
  for (auto& parameter : model.named_parameters()) {
    const int64_t layer = layer_of(parameter.key());
    if (layer < 0) continue;
    if (parameter.key().ends_with("lora.0.weight")) parameter.value().fill_(0);
    for (const auto& [name, value] : vectors(layer, config)) {
      const bool is_of_part = name.starts_with("ffn.") == (parameter.key().find(".ffn.") != std::string::npos);
      if (is_of_part && parameter.key().ends_with("." + name))
        parameter.value().copy_(value.view_as(parameter.value()));
    }
  }
}

}  // namespace comba::models
