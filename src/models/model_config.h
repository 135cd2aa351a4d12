#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace comba::models {

/// Softmax attention layers: of a transformer, or those a hybrid has in place of its recurrent layers.
struct AttentionConfig {
  std::vector<int64_t> layers;  ///< which layers, from 0
  int64_t num_heads = 0;        ///< query heads; their dim is hidden_size / num_heads
  int64_t num_kv_heads = 0;     ///< divides num_heads
  bool qkv_bias = false;
  std::optional<int64_t> window_size;  ///< tokens seen, the own one included; absent: all
  double rope_theta = 10000.0;
};

/// A model as its config.json describes it: keys and meaning of flash-linear-attention and Hugging Face, and three keys
/// of our own (comba_convention, comba_rule, and an intermediate_size of 0 for blocks without an MLP).
struct ModelConfig {
  std::string model_type = "comba";  ///< "comba" | "gated_deltanet" | "transformer"
  std::string convention = "paper";  ///< key comba_convention: "paper" | "fla"; a file without the key means "fla"
  std::string rule = "splr";         ///< key comba_rule: "splr" | "iplr" (decay first, beta up to 2)
  int64_t hidden_size = 1024;        ///< D
  int64_t num_hidden_layers = 24;    ///< L
  int64_t num_heads = 4;             ///< H
  int64_t num_v_heads = 4;           ///< HV, a multiple of H
  int64_t head_dim = 256;            ///< K
  double expand_v = 1.0;             ///< V = head_dim * expand_v
  int64_t intermediate_size = 2816;  ///< of the MLP; 0: no MLP
  int64_t vocab_size = 32000;
  int64_t conv_size = 4;
  double norm_eps = 1e-6;
  double initializer_range = 0.006;  ///< standard deviation of linear, convolution and embedding weights
  bool tie_word_embeddings = true;
  bool use_output_correction = true;  ///< q - d k (Comba)
  bool use_inner_decay = true;        ///< b = sigmoid(decay) (Comba)
  bool use_output_gate = true;        ///< key use_gate in gated_deltanet
  bool use_short_conv = true;
  bool allow_neg_eigval = false;    ///< beta up to 2 (gated_deltanet)
  double correction_factor = 0.02;  ///< initial d
  std::optional<AttentionConfig> attn;

  int64_t head_v_dim() const;  ///< V
};

/// Reads the text of a config.json. Throws Error: invalid_argument for text that is no JSON object, an unknown key
/// (with the nearest known one), a value of the wrong type or out of range, or values that contradict each other;
/// unsupported for a model_type or an option that nothing here implements.
ModelConfig parse_model_config(const std::string& json_text);

/// parse_model_config of a file.
ModelConfig load_model_config(const std::filesystem::path& path);

/// The text of a config.json that parse_model_config reads back to the same value.
std::string to_json(const ModelConfig& config);

/// The rules between the values. Throws Error as parse_model_config does.
void validate(const ModelConfig& config);

/// Model types that CausalLM implements, as config.json spells them.
const std::vector<std::string>& supported_model_types();

}  // namespace comba::models
