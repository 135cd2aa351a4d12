#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace comba::models {

inline constexpr const char* kSoftmaxAttention = "softmax";
inline constexpr const char* kGatedSlotAttention = "gated_slot";

/// Attention layers: all of a transformer's, or those a hybrid has in place of its recurrent ones.
struct AttentionConfig {
  std::string type = kSoftmaxAttention;  ///< or gated_slot, which has num_heads and num_slots alone
  std::vector<int64_t> layers;           ///< which layers, from 0
  int64_t num_heads = 0;                 ///< query heads; their dim is hidden_size / num_heads
  int64_t num_kv_heads = 0;              ///< divides num_heads
  bool qkv_bias = false;
  std::optional<int64_t> window_size;  ///< tokens seen, the own one included; absent: all
  double rope_theta = 10000.0;
  int64_t num_slots = 0;  ///< of gated_slot: M
};

/// Keys of the mixers that the paper compares with; each model type has some of them (model_family.cpp says which).
struct FamilyConfig {
  double expand_k = 1.0;             ///< K = D expand_k / H
  std::string feature_map = "elu";   ///< linear_attn: "identity", "relu" or "elu" (elu + 1) of q and k
  bool use_lower_bound = true;       ///< hgrn2: bounds of the forget gates that rise with the layer
  int64_t num_slots = 0;             ///< gsa: M
  double gate_logit_normalizer = 8;  ///< gsa: a = sigmoid(.)^(1 / this)
  int64_t state_size = 128;          ///< mamba2: K
  int64_t n_groups = 1;              ///< mamba2: of heads that share q and k
  bool use_conv_bias = true;         ///< mamba2
  bool use_bias = false;             ///< mamba2: of in_proj and out_proj
  int64_t decay_low_rank_dim = 0;    ///< rwkv7; absent from the file, each: a multiple of 32 that grows with D
  int64_t gate_low_rank_dim = 0;     ///< rwkv7
  int64_t a_low_rank_dim = 0;        ///< rwkv7
  int64_t v_low_rank_dim = 0;        ///< rwkv7
  bool norm_bias = true;             ///< rwkv7: of the layer norms
  int64_t mini_batch_size = 16;      ///< ttt_linear, ttt_mlp, miras: tokens
  double base_learning_rate = 1.0;   ///< ttt_linear, ttt_mlp, miras: the largest rate of a token's inner step
  double power = 3.0;                ///< miras: p
};

/// A model as its config.json describes it: keys, meaning and defaults of flash-linear-attention and Hugging Face, and
/// things of our own: comba_convention, comba_rule, learn_correction_factor, A_init_max, an intermediate_size of 0 for
/// blocks without an MLP, attn.type for hybrids with other layers than softmax attention, and the model types
/// ttt_linear, ttt_mlp and miras.
struct ModelConfig {
  std::string model_type = "comba";  ///< one of supported_model_types()
  std::string convention = "paper";  ///< key comba_convention: "paper" | "fla"; a file without the key means "fla"
  std::string rule = "splr";         ///< key comba_rule: "splr" | "iplr" (decay, then correct, with beta up to 2)
  int64_t hidden_size = 0;           ///< D
  int64_t num_hidden_layers = 0;     ///< L
  int64_t num_heads = 0;             ///< H
  int64_t num_v_heads = 0;           ///< HV, a multiple of H; absent from the file: H
  int64_t head_dim = 0;              ///< K
  double expand_v = 1.0;             ///< V = head_dim * expand_v; linear_attn, retnet and gla: D expand_v / H
  int64_t intermediate_size = 0;     ///< of the MLP; absent from the file: 256 ceil(int(2/3 hidden_ratio D) / 256)
  int64_t vocab_size = 0;
  int64_t conv_size = 4;
  double norm_eps = 1e-6;
  double initializer_range = 0.02;  ///< standard deviation of linear, convolution and embedding weights
  bool tie_word_embeddings = false;
  bool use_output_correction = true;  ///< comba: q - d k
  bool use_inner_decay = true;        ///< comba: b = sigmoid(decay), else 1
  bool use_output_gate = true;        ///< key use_gate in gated_deltanet
  bool use_short_conv = true;
  bool allow_neg_eigval = false;        ///< gated_deltanet: beta up to 2
  double correction_factor = 1.0;       ///< comba: d at the start
  bool learn_correction_factor = true;  ///< comba: d is trained; false: it stays as it is
  double A_init_max = 16;               ///< comba, gated_deltanet: exp(A_log) of a new model is uniform in (0, this]
  FamilyConfig family{};
  std::optional<AttentionConfig> attn{};  ///< transformer: always there, with every layer

  int64_t head_v_dim() const;  ///< V
};

/// Reads the text of a config.json. Throws Error: invalid_argument for text that is no JSON object, an unknown key
/// (with the nearest known one), a missing key, a value of the wrong type or out of range, or values that contradict
/// each other; unsupported for a model_type or an option that nothing here implements.
ModelConfig parse_model_config(const std::string& json_text);

/// parse_model_config of a file; errors name it, and are io where that throws invalid_argument.
ModelConfig load_model_config(const std::filesystem::path& path);

/// The text of a config.json that parse_model_config reads back to the same value.
std::string to_json(const ModelConfig& config);

/// The rules between the values. Throws Error as parse_model_config does.
void validate(const ModelConfig& config);

/// Model types that CausalLM implements, as config.json spells them.
const std::vector<std::string>& supported_model_types();

}  // namespace comba::models
