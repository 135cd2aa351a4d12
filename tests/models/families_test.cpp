// The models of every mixer as wholes, and what their config.json may say.

#include <gmock/gmock.h>
#include <torch/utils.h>

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "comba/error.h"
#include "models/causal_lm.h"
#include "models/mixer_table.h"
#include "models/model_family.h"
#include "support/tensor_compare.h"

namespace comba::models {
namespace {

using test::close;
using testing::HasSubstr;
using testing::ThrowsMessage;

const std::filesystem::path kConfigs = std::filesystem::path(COMBA_SOURCE_DIR) / "configs";

class EveryTinyModel : public testing::TestWithParam<const char*> {
 protected:
  EveryTinyModel() : model_(load_model_config(kConfigs / (std::string(GetParam()) + "-tiny.json"))) {
    torch::manual_seed(3);
    const torch::NoGradGuard no_grad;
    for (at::Tensor& parameter : model_.parameters()) parameter.normal_(0, 0.2);
    ids_ = at::randint(model_.config().vocab_size, {1, 90}, at::kLong);
  }

  CausalLM model_;
  at::Tensor ids_;
};

INSTANTIATE_TEST_SUITE_P(Models, EveryTinyModel,
                         testing::Values("comba", "comba-gsa", "gdn", "gla", "gsa", "hgrn2", "hybrid",
                                         "linear-attention", "mamba2", "miras", "retnet", "rwkv7", "transformer",
                                         "ttt-linear", "ttt-mlp"));

TEST_P(EveryTinyModel, ReadsAStreamInAnyParts) {
  const torch::NoGradGuard no_grad;
  const at::Tensor whole = model_.forward(ids_);
  for (const std::vector<int64_t>& lengths : {std::vector<int64_t>{50, 40}, {1, 1, 70, 8, 1, 9}}) {
    ModelState state = model_.initial_state(1);
    std::vector<at::Tensor> parts;
    for (const at::Tensor& part : ids_.split_with_sizes(lengths, 1)) parts.push_back(model_.forward(part, &state));
    EXPECT_TRUE(close(at::cat(parts, 1), whole, 1e-5, "logits"));
  }
}

TEST_P(EveryTinyModel, KeepsPackedSequencesApart) {
  const torch::NoGradGuard no_grad;
  const at::Tensor packed = model_.forward(ids_, nullptr, torch::tensor({0, 7, 7, 90}));
  EXPECT_TRUE(close(packed.narrow(1, 0, 7), model_.forward(ids_.narrow(1, 0, 7)), 1e-5, "first sequence"));
  EXPECT_TRUE(close(packed.narrow(1, 7, 83), model_.forward(ids_.narrow(1, 7, 83)), 1e-5, "second sequence"));
}

TEST_P(EveryTinyModel, BeginsFiniteWithEveryParameterSet) {
  const torch::NoGradGuard no_grad;
  for (at::Tensor& parameter : model_.parameters()) parameter.fill_(std::numeric_limits<float>::quiet_NaN());
  model_.initialize(1);
  for (const auto& parameter : model_.named_parameters()) {
    EXPECT_TRUE(parameter.value().isfinite().all().item<bool>()) << parameter.key();
  }
  const double nats = model_.loss(ids_, ids_.roll(-1, 1)).item<double>();
  EXPECT_NEAR(nats, std::log(264.0), 0.5) << "it should know nothing yet";
}

TEST(Families, AnRWKV7BeginsWithItsAuthorsVectors) {
  CausalLM model(load_model_config(kConfigs / "rwkv7-tiny.json"));  // 2 layers, D = 64, K = 32
  model.initialize(1);
  const auto p = model.named_parameters();
  const auto channel = [&](const char* name, int64_t c) { return p[name].flatten()[c].item<double>(); };
  EXPECT_NEAR(channel("model.layers.0.attn.x_r", 32), 1 - std::pow(0.5, 0.2), 1e-6);
  EXPECT_NEAR(channel("model.layers.1.attn.x_k", 32), 1 - std::pow(0.5, 0.35), 1e-6);
  EXPECT_NEAR(channel("model.layers.0.ffn.x_k", 32), 0.5, 1e-6);
  EXPECT_NEAR(channel("model.layers.1.ffn.x_k", 32), 1 - std::pow(0.5, 1.0 / 16), 1e-6);
  EXPECT_NEAR(channel("model.layers.1.attn.k_a", 5), 1.02, 1e-6);
  EXPECT_NEAR(channel("model.layers.0.attn.w_lora.lora.2.bias", 0), -8, 1e-5);
  EXPECT_NEAR(channel("model.layers.1.attn.w_lora.lora.2.bias", 63), 3, 1e-5);
  EXPECT_NEAR(channel("model.layers.0.attn.g_norm.weight", 7), std::pow(0.5, 0.7), 1e-6);
  EXPECT_EQ(p["model.layers.1.attn.v_lora.lora.0.weight"].abs().max().item<double>(), 0);
}

TEST(Families, TheTableSaysWhatAMixerCosts) {
  const std::vector<MixerRow> rows = mixer_table(/*hidden_size=*/512, /*num_tokens=*/100);
  EXPECT_EQ(rows.size(), 15u);
  for (const MixerRow& row : rows) {
    EXPECT_GT(row.num_parameters, 4 * 512 * 512 / 2) << row.name;
    EXPECT_GT(row.flops, row.facts.rule_flops) << row.name;
    EXPECT_GT(row.facts.state_bytes, 0) << row.name;
  }
  EXPECT_EQ(rows[0].facts.state_bytes, 100 * 2 * 512 * 4);
  EXPECT_THAT([] { mixer_table(100, 1); }, ThrowsMessage<Error>(HasSubstr("multiple of 256; got 100")));
}

using Json = nlohmann::ordered_json;

ModelConfig parse(Json json) {
  Json whole = {{"hidden_size", 1024}, {"num_hidden_layers", 2}, {"vocab_size", 11}};
  whole.update(json);
  return parse_model_config(whole.dump());
}

TEST(Families, AForeignFileMeansFlasDefaults) {
  EXPECT_EQ(parse({{"model_type", "gla"}}).family.expand_k, 0.5);
  EXPECT_EQ(parse({{"model_type", "gla"}}).intermediate_size, 2816);
  EXPECT_EQ(parse({{"model_type", "retnet"}}).expand_v, 2);
  EXPECT_EQ(parse({{"model_type", "retnet"}}).intermediate_size, 1536);
  EXPECT_EQ(parse({{"model_type", "hgrn2"}}).num_heads, 8);
  EXPECT_EQ(parse({{"model_type", "mamba2"}}).num_heads, 32);
  EXPECT_EQ(parse({{"model_type", "mamba2"}}).intermediate_size, 0);
  EXPECT_EQ(parse({{"model_type", "gsa"}}).family.num_slots, 64);
  const ModelConfig rwkv7 = parse({{"model_type", "rwkv7"}});
  EXPECT_EQ(rwkv7.intermediate_size, 4096);
  EXPECT_EQ(rwkv7.norm_eps, 1e-5);
  EXPECT_EQ(rwkv7.family.decay_low_rank_dim, 64);
  EXPECT_EQ(rwkv7.family.gate_low_rank_dim, 160);
}

struct BadFamily {
  Json json;
  const char* complaint;
};

class BadFamilyConfig : public testing::TestWithParam<BadFamily> {};

INSTANTIATE_TEST_SUITE_P(
    Families, BadFamilyConfig,
    testing::Values(
        BadFamily{{{"model_type", "linear_attn"}},
                  "feature_map must be elu, relu or identity; got elementwise_product"},
        BadFamily{{{"model_type", "gla"}, {"expand_k", 0.3}}, "hidden_size * expand_k must be a whole number"},
        BadFamily{{{"model_type", "gla"}, {"num_heads", 3}}, "expand_k must be a multiple of num_heads; got 512 and 3"},
        BadFamily{{{"model_type", "gla"}, {"use_short_conv", true}}, "use_short_conv must be false; got true"},
        BadFamily{{{"model_type", "gla"}, {"expand_q", 1}}, "unknown key expand_q; the nearest known is expand_"},
        BadFamily{{{"model_type", "retnet"}, {"num_kv_heads", 4}}, "num_kv_heads must be 8; got 4"},
        BadFamily{{{"model_type", "hgrn2"}, {"expand_ratio", 3}}, "hidden_size must be a multiple of num_heads"},
        BadFamily{{{"model_type", "hgrn2"}, {"expand_ratio", 2048}}, "num_heads must be from 1 to"},
        BadFamily{{{"model_type", "mamba2"}, {"expand", 3}}, "expand must be 2.0; got 3"},
        BadFamily{{{"model_type", "mamba2"}, {"n_groups", 3}},
                  "num_heads must be a multiple of n_groups; got 32 and 3"},
        BadFamily{{{"model_type", "mamba2"}, {"intermediate_size", 8}}, "mamba2 has no MLP"},
        BadFamily{{{"model_type", "gsa"}, {"num_slots", 0}}, "num_slots must be from 1 to"},
        BadFamily{{{"model_type", "gsa"}, {"gate_logit_normalizer", 0}}, "must be positive; got 0"},
        BadFamily{{{"model_type", "rwkv7"}, {"head_dim", 60}}, "hidden_size must be a multiple of head_dim"},
        BadFamily{{{"model_type", "rwkv7"}, {"value_dim", {1024, 512}}}, "value_dim must be 1024; got [1024,512]"},
        BadFamily{{{"model_type", "rwkv7"}, {"hidden_act", "swish"}}, "hidden_act must be \"sqrelu\"; got \"swish\""},
        BadFamily{{{"model_type", "ttt_mlp"}, {"mini_batch_size", 0}}, "mini_batch_size must be from 1 to"},
        BadFamily{{{"model_type", "miras"}, {"power", 1.5}}, "power must be from 2 to 8; got 1.5"},
        BadFamily{{{"model_type", "miras"}, {"base_learning_rate", -1}}, "base_learning_rate must be positive; got -1"},
        BadFamily{{{"model_type", "gla"}, {"attn", {{"layers", {1}}, {"num_heads", 2}, {"type", "slots"}}}},
                  "attn.type must be softmax or gated_slot; got slots"},
        BadFamily{{{"model_type", "gla"},
                   {"attn", {{"layers", {1}}, {"num_heads", 2}, {"type", "gated_slot"}, {"num_slots", 0}}}},
                  "attn.num_slots must be from 1 to"}));

TEST_P(BadFamilyConfig, IsRefusedWithItsReason) {
  ASSERT_NO_THROW(parse({{"model_type", "gla"}}));
  EXPECT_THAT([] { parse(GetParam().json); }, ThrowsMessage<Error>(HasSubstr(GetParam().complaint)));
}

}  // namespace
}  // namespace comba::models
