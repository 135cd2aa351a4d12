#pragma once

#include <torch/nn/module.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "models/model_config.h"

namespace comba::tasks {

/// The small model in which Zoology compares mixers (arXiv 2312.04927): an embedding with dropout, a gated convolution
/// in layer 0 and the mixer in the others, no positions but those that a mixer finds by itself, a final norm, and the
/// embedding again as the output projection. Norms are LayerNorms. In each layer, the identity standing for the MLP,
///     x += mixer(mixer_norm(x));   x += state_norm(x)
class RecallModel : public torch::nn::Module {
 public:
  /// Of `config`, num_hidden_layers counts the gated convolution. A transformer's attention turns no keys: it has no
  /// rotary positions here. Parameters are allocated on the CPU, not set.
  explicit RecallModel(const models::ModelConfig& config);
  ~RecallModel() override;

  /// Linear maps and embeddings ~ N(0, 0.02), biases 0, convolutions ~ U(-1, 1) / sqrt(width), norms 1; the rest as
  /// models::CausalLM does. The seed alone decides. To be called before the model goes to a GPU.
  void initialize(std::uint64_t seed);

  /// Logits at `positions` only.  inputs [B, T] i64, positions [B, P] i64 -> [B, P, vocab]
  /// In training mode dropout draws from LibTorch's generator.
  at::Tensor forward(const at::Tensor& inputs, const at::Tensor& positions);

  /// What the layers of the mixer remember of one sequence of `length` tokens: recurrent states, tails of convolutions,
  /// keys and values.
  std::int64_t state_bytes(std::int64_t length);

  std::int64_t num_parameters() const;

 private:
  class Layer;

  models::ModelConfig config_;
  at::Tensor embedding_;  // [vocab, D]
  std::vector<std::shared_ptr<Layer>> layers_;
  std::shared_ptr<Module> final_norm_;
};

}  // namespace comba::tasks
