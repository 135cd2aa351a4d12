// The mixers whose writes depend on what the state already holds, beside the delta rules of this project.

#include <algorithm>
#include <cmath>

#include "base/message.h"
#include "models/model_family.h"

namespace comba::models {
namespace {

// ---- rwkv7 ---------------------------------------------------------------------------------------------------------

/// The rank of a low-rank map that nothing is said of: a multiple of 32 near `factor` sqrt(D).
int64_t usual_rank(double factor, const ModelConfig& config) {
  const double rank = factor * std::sqrt(static_cast<double>(config.hidden_size));
  return std::max<int64_t>(32, 32 * static_cast<int64_t>(std::nearbyint(rank / 32)));
}

void set_usual_ranks(ModelConfig& config) {
  const double per_head = static_cast<double>(config.head_dim) / 64;
  const auto fill = [&](int64_t& rank, double factor) {
    if (rank == 0) rank = usual_rank(factor, config);
  };
  fill(config.family.decay_low_rank_dim, 2.5 * per_head);
  fill(config.family.gate_low_rank_dim, 5);
  fill(config.family.a_low_rank_dim, 2.5 * per_head);
  fill(config.family.v_low_rank_dim, 1.7 * per_head);
}

ModelFamily rwkv7() {
  return {
      .model_type = "rwkv7",
      .architecture = "RWKV7ForCausalLM",
      .hidden_act = {"sqrelu"},
      .intermediate_size =
          [](int64_t hidden_size, double hidden_ratio) {
            return 32 * ((static_cast<int64_t>(static_cast<double>(hidden_size) * hidden_ratio) + 31) / 32);
          },
      .set_defaults =
          [](ModelConfig& config) {
            config.norm_eps = 1e-5;
            config.head_dim = 64;
          },
      .visit =
          [](ModelConfig& config, const KeyVisitor& key) {
            key("head_dim", config.head_dim);
            config.num_heads = config.head_dim > 0 ? config.hidden_size / config.head_dim : 0;
            key("decay_low_rank_dim", config.family.decay_low_rank_dim);
            key("gate_low_rank_dim", config.family.gate_low_rank_dim);
            key("a_low_rank_dim", config.family.a_low_rank_dim);
            key("v_low_rank_dim", config.family.v_low_rank_dim);
            set_usual_ranks(config);
            key("norm_bias", config.family.norm_bias);
          },
      .require_known =
          [](KeyReader& keys, const ModelConfig& config) {
            keys.require_value("num_heads", {config.num_heads});
            keys.require_value("norm_first", {true});
            const auto layers =
                static_cast<size_t>(std::min<int64_t>(std::max<int64_t>(config.num_hidden_layers, 0), 65536));
            keys.require_value("value_dim", {config.hidden_size, std::vector<int64_t>(layers, config.hidden_size)});
          },
      .validate =
          [](const ModelConfig& config) {
            require_divides("hidden_size", config.hidden_size, "head_dim", config.head_dim);
            require_range("intermediate_size", config.intermediate_size, 1, kLargestSize);
            require_range("decay_low_rank_dim", config.family.decay_low_rank_dim, 1, kLargestSize);
            require_range("gate_low_rank_dim", config.family.gate_low_rank_dim, 1, kLargestSize);
            require_range("a_low_rank_dim", config.family.a_low_rank_dim, 1, kLargestSize);
            require_range("v_low_rank_dim", config.family.v_low_rank_dim, 1, kLargestSize);
            require(!config.attn.has_value(), ErrorCode::unsupported,
                    "[model_config] attention layers in an rwkv7 are not supported; attn must be null");
          },
  };
}

// ---- ttt_linear, ttt_mlp, miras ------------------------------------------------------------------------------------

void visit_learning(ModelConfig& config, const KeyVisitor& key) {
  key("num_heads", config.num_heads);
  key("use_short_conv", config.use_short_conv);
  key("conv_size", config.conv_size);
  key("mini_batch_size", config.family.mini_batch_size);
  key("base_learning_rate", config.family.base_learning_rate);
}

void validate_learning(const ModelConfig& config) {
  require_divides("hidden_size", config.hidden_size, "num_heads", config.num_heads);
  require_range("conv_size", config.conv_size, 1, 64);
  require_range("mini_batch_size", config.family.mini_batch_size, 1, 1024);
  const double rate = config.family.base_learning_rate;
  require(std::isfinite(rate) && rate > 0, ErrorCode::invalid_argument,
          "[model_config] base_learning_rate must be positive; got ", rate);
}

void require_nothing(KeyReader&, const ModelConfig&) {}

ModelFamily ttt_linear() {
  return {
      .model_type = "ttt_linear",
      .architecture = "TTTLinearForCausalLM",
      .set_defaults = [](ModelConfig& config) { config.num_heads = 4; },
      .visit = visit_learning,
      .require_known = require_nothing,
      .validate = validate_learning,
  };
}

ModelFamily ttt_mlp() {
  ModelFamily family = ttt_linear();
  family.model_type = "ttt_mlp";
  family.architecture = "TTTMLPForCausalLM";
  family.set_defaults = [](ModelConfig& config) {
    config.num_heads = 4;
    config.family.base_learning_rate = 0.1;
  };
  return family;
}

ModelFamily miras() {
  return {
      .model_type = "miras",
      .architecture = "MirasForCausalLM",
      .set_defaults =
          [](ModelConfig& config) {
            config.num_heads = 4;
            config.family.base_learning_rate = 0.1;
          },
      .visit =
          [](ModelConfig& config, const KeyVisitor& key) {
            visit_learning(config, key);
            key("power", config.family.power);
          },
      .require_known = require_nothing,
      .validate =
          [](const ModelConfig& config) {
            validate_learning(config);
            require(config.family.power >= 2 && config.family.power <= 8, ErrorCode::invalid_argument,
                    "[model_config] power must be from 2 to 8; got ", config.family.power);
          },
  };
}

}  // namespace

std::vector<ModelFamily> closed_loop_families() { return {rwkv7(), ttt_linear(), ttt_mlp(), miras()}; }

}  // namespace comba::models
