#pragma once

#include <torch/nn/module.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "models/model_config.h"
#include "nn/layer_state.h"
#include "nn/linear.h"

namespace comba::models {

using nn::LayerState;

/// Everything a model remembers of a token stream. forward() advances it in place: clone() to fork a stream.
struct ModelState {
  std::vector<LayerState> layers;
  int64_t position = 0;  ///< tokens read so far

  ModelState clone() const;
};

/// How training computes a model whose weights are fp32.
struct PassOptions {
  /// Of the linear maps, the operator and attention; the residual stream, norms, convolutions, gates and the loss stay
  /// fp32. Absent: the dtype of the weights.
  std::optional<at::ScalarType> compute_dtype = {};
  /// Keep only what goes into each block and compute the rest again in the backward pass: the same bits, less memory.
  bool recompute_blocks = false;
};

/// Embedding, L residual blocks, final norm and output projection.
/// named_parameters() gives exactly the names of the checkpoint, e.g. model.layers.0.attn.q_proj.weight; a tied output
/// projection has no parameter of its own.
class CausalLM : public torch::nn::Module {
 public:
  /// Allocates the parameters without setting them: call initialize(), or load a checkpoint.
  /// `options` chooses dtype and device; on the meta device nothing is allocated. Throws Error as validate() does.
  explicit CausalLM(const ModelConfig& config, const at::TensorOptions& options = {});

  const ModelConfig& config() const { return config_; }

  /// Where the parameters are: to(device) moves them. Token ids may come from anywhere; results are where the model is.
  at::Device device() const;

  /// The initialisation of the paper's released code: linear, convolution and embedding weights ~ N(0,
  /// initializer_range); o_proj and down_proj ~ U(-1, 1) / sqrt(fan_in) / sqrt(2 L); norms 1; A_log = log U(0,
  /// A_init_max); dt_bias = inverse softplus of a log-uniform draw from [1e-3, 1e-1]; D = correction_factor; decay = 1.
  /// The vectors of RWKV7 have the values of its authors. The same seed gives the same bits, whatever the number of
  /// threads and whatever was drawn before.
  void initialize(uint64_t seed);

  /// Keeps the matrices of all linear maps and the embedding as nn/int8_linear.h says: a quarter of fp32's bytes, for
  /// inference. What else there is keeps its dtype, which is that of the activations: call to(dtype) before. A model
  /// that was rounded cannot be trained, saved or rounded back; loss() refuses.
  void round_weights_to_int8();

  /// Logits of each next token.  input_ids [B, T] i64 -> [B, T, vocab]
  /// `state`, when given, is read and advanced by T tokens; it excludes cu_seqlens. No gradient flows through it.
  /// cu_seqlens [N + 1]: borders of packed sequences, B = 1; no token then sees one of another sequence.
  at::Tensor forward(const at::Tensor& input_ids, ModelState* state = nullptr, const at::Tensor& cu_seqlens = {});

  /// Logits of the token after the last one.  input_ids [B, T] i64, T > 0 -> [B, vocab]
  /// The last row of forward(), without the work and the memory of the others.
  at::Tensor next_logits(const at::Tensor& input_ids, ModelState& state);

  /// Mean cross entropy in nats, an fp32 scalar, over the labels that are not -100.
  /// labels [B, T] i64: labels[b, t] is the token to be predicted at position t (nothing is shifted in here).
  /// No label at all gives NaN.
  at::Tensor loss(const at::Tensor& input_ids, const at::Tensor& labels, const at::Tensor& cu_seqlens = {},
                  const PassOptions& pass = {});

  /// The state before the first token of B streams.
  ModelState initial_state(int64_t batch) const;

  /// Whether a token's place in its stream matters to some layer: then only streams of one length are one batch.
  bool knows_positions() const;

 private:
  class Backbone;

  at::Tensor hidden(const at::Tensor& input_ids, ModelState* state, const at::Tensor& cu_seqlens,
                    const PassOptions& pass = {});  // [B, T, D]
  at::Tensor project(const at::Tensor& hidden);     // [.., D] -> [.., vocab]

  ModelConfig config_;
  std::shared_ptr<Backbone> backbone_;
  std::shared_ptr<nn::Linear> lm_head_;  // null where the output projection is tied to the embedding
};

/// One line of the table of a model's parameters.
struct ParameterRow {
  std::string name;
  std::vector<int64_t> shape;
  int64_t count = 0;
};

/// Every parameter of a configuration, in the order of the checkpoint. Allocates no weights.
std::vector<ParameterRow> parameter_table(const ModelConfig& config);

}  // namespace comba::models
