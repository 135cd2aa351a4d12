#include "models/mixer_table.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/message.h"
#include "models/make_mixer.h"

namespace comba::models {
namespace {

using Json = nlohmann::ordered_json;

constexpr int64_t kWindow = 2048;

MixerRow row(const std::string& name, Json json, int64_t hidden_size, int64_t num_tokens) {
  json.update({{"hidden_size", hidden_size}, {"num_hidden_layers", 1}, {"vocab_size", 1}});
  const ModelConfig config = parse_model_config(json.dump());
  const auto mixer = make_mixer(config, /*layer=*/0, at::TensorOptions(at::kMeta));
  const nn::MixerFacts facts = mixer->facts(num_tokens);
  return {.name = name,
          .model_type = config.model_type,
          .facts = facts,
          .num_parameters = nn::num_parameters(*mixer),
          .flops = nn::linear_flops(*mixer) + facts.rule_flops};
}

}  // namespace

std::vector<MixerRow> mixer_table(int64_t hidden_size, int64_t num_tokens) {
  require(hidden_size > 0 && hidden_size % 256 == 0, ErrorCode::invalid_argument,
          "[mixers] the hidden size must be a multiple of 256; got ", hidden_size);
  require(num_tokens > 0, ErrorCode::invalid_argument, "[mixers] the number of tokens must be at least 1; got ",
          num_tokens);
  // Heads of the sizes that the papers' models have: 64 for attention, 256 for the others, which keep a state a head.
  const int64_t wide_heads = hidden_size / 256;
  const Json heads = {{"num_heads", wide_heads}};
  const auto with = [&](Json json, const Json& more) {
    json.update(more);
    return json;
  };
  const Json delta = with(heads, {{"head_dim", 256}, {"expand_v", 1.0}});
  const Json attention = {{"model_type", "transformer"}, {"num_heads", hidden_size / 64}};
  const std::vector<std::pair<std::string, Json>> mixers = {
      {"softmax attention", attention},
      {"sliding window", with(attention, {{"window_size", kWindow}})},
      {"linear attention", with(heads, {{"model_type", "linear_attn"}, {"feature_map", "elu"}})},
      {"RetNet", with(heads, {{"model_type", "retnet"}})},
      {"GLA", with(heads, {{"model_type", "gla"}})},
      {"HGRN2", {{"model_type", "hgrn2"}}},
      {"Mamba2", {{"model_type", "mamba2"}}},
      {"Gated Slot Attention", with(heads, {{"model_type", "gsa"}})},
      {"Gated DeltaNet", with(delta, {{"model_type", "gated_deltanet"}})},
      {"RWKV7", {{"model_type", "rwkv7"}}},
      {"TTT-Linear", with(heads, {{"model_type", "ttt_linear"}})},
      {"TTT-MLP", with(heads, {{"model_type", "ttt_mlp"}})},
      {"MIRAS", with(heads, {{"model_type", "miras"}})},
      {"Comba SPLR", with(delta, {{"model_type", "comba"}, {"comba_convention", "paper"}})},
      {"Comba IPLR", with(delta, {{"model_type", "comba"}, {"comba_convention", "paper"}, {"comba_rule", "iplr"}})},
  };
  std::vector<MixerRow> rows;
  for (const auto& [name, json] : mixers) rows.push_back(row(name, json, hidden_size, num_tokens));
  return rows;
}

}  // namespace comba::models
