#include "models/model_config.h"

#include <gmock/gmock.h>

#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <numeric>

#include "comba/error.h"
#include "models/causal_lm.h"

namespace comba::models {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Property;
using testing::Throws;
using testing::ThrowsMessage;
using Json = nlohmann::json;

const std::filesystem::path kConfigs = std::filesystem::path(COMBA_SOURCE_DIR) / "configs";

Json small_comba() {
  return {{"model_type", "comba"}, {"hidden_size", 8},       {"num_hidden_layers", 2}, {"num_heads", 2},
          {"head_dim", 4},         {"intermediate_size", 6}, {"vocab_size", 10}};
}

ModelConfig parse(const Json& json) { return parse_model_config(json.dump()); }

int64_t num_parameters(const ModelConfig& config) {
  int64_t total = 0;
  for (const ParameterRow& row : parameter_table(config)) total += row.count;
  return total;
}

/// The sizes that follow from the table of the paper's models. A block of the 340M models has
///     comba        5 D^2 of q, k, v, g, o; 2 D H of a, b; 4 (3 D) of convolutions; 4 H of A_log, dt_bias, D, decay; V
///     attention    4 D^2
///     both         3 D I of the MLP, 2 D of norms
/// and beside the blocks there are 32000 D of embeddings and D of the last norm.
TEST(ModelConfig, EveryConfigurationHasItsSize) {
  const std::map<std::string, int64_t> sizes = {
      {"comba-1.3b.json", 1'213'997'440},
      {"comba-340m.json", 366'763'392},
      {"comba-gsa-340m.json", 364'344'912},
      {"comba-gsa-tiny.json", 119'212},
      {"comba-mamba-like-340m.json", 350'985'312},
      {"comba-swa-340m.json", 353'931'456},
      {"comba-tiny.json", 135'064},
      {"gdn-340m.json", 366'763'392 - 24 * (4 + 4)},  // no D, no decay
      {"gdn-tiny.json", 135'064 - 2 * (2 + 2)},
      {"gla-340m.json", 341'707'776},
      {"gla-tiny.json", 102'336},
      {"gsa-340m.json", 347'415'552},
      {"gsa-tiny.json", 103'360},
      {"hgrn2-340m.json", 341'148'672},
      {"hgrn2-tiny.json", 99'392},
      {"hybrid-340m.json", 21 * 13'916'432 + 3 * 12'847'104 + 32'769'024},
      {"hybrid-tiny.json", 59'052 + 36'992 + 16'960},
      {"linear-attention-340m.json", 341'105'664},
      {"linear-attention-tiny.json", 99'200},
      {"mamba2-340m.json", 349'619'712},
      {"mamba2-tiny.json", 72'728},
      {"miras-340m.json", 342'206'592},
      {"miras-tiny.json", 101'324},
      {"retnet-340m.json", 347'403'264},
      {"retnet-tiny.json", 132'032},
      {"rwkv7-340m.json", 352'398'336},
      {"rwkv7-tiny.json", 94'272},
      {"transformer-340m.json", 24 * 12'847'104 + 32'769'024},
      {"transformer-tiny.json", 2 * 36'992 + 16'960},
      {"ttt-linear-340m.json", 343'459'200},
      {"ttt-linear-tiny.json", 105'540},
      {"ttt-mlp-340m.json", 354'567'552},
      {"ttt-mlp-tiny.json", 134'724},
  };
  std::map<std::string, int64_t> measured;
  for (const auto& entry : std::filesystem::directory_iterator(kConfigs)) {
    if (entry.path().extension() != ".json") continue;
    measured[entry.path().filename()] = num_parameters(load_model_config(entry.path()));
  }
  EXPECT_EQ(measured, sizes);
}

TEST(ModelConfig, EveryConfigurationSurvivesARoundTrip) {
  int64_t num_read = 0;
  for (const char* folder : {"configs", "tests/fixtures/fla"}) {
    for (const auto& entry :
         std::filesystem::recursive_directory_iterator(std::filesystem::path(COMBA_SOURCE_DIR) / folder)) {
      if (entry.path().extension() != ".json") continue;
      const std::string text = to_json(load_model_config(entry.path()));
      EXPECT_EQ(to_json(parse_model_config(text)), text) << entry.path();
      ++num_read;
    }
  }
  EXPECT_GE(num_read, 8);
}

TEST(ModelConfig, ValuesSurviveARoundTrip) {
  Json json = small_comba();
  json.update({{"comba_convention", "paper"},
               {"comba_rule", "iplr"},
               {"num_v_heads", 4},
               {"expand_v", 1.5},
               {"norm_eps", 1e-5},
               {"use_inner_decay", false},
               {"use_short_conv", false},
               {"correction_factor", 0.02},
               {"learn_correction_factor", false},
               {"A_init_max", 1.5},
               {"tie_word_embeddings", true}});
  json["attn"] = {{"layers", {1}}, {"num_heads", 2}, {"num_kv_heads", 1}, {"window_size", 7}, {"rope_theta", 500.0}};
  const ModelConfig config = parse_model_config(to_json(parse(json)));
  EXPECT_EQ(config.convention, "paper");
  EXPECT_EQ(config.rule, "iplr");
  EXPECT_EQ(config.num_v_heads, 4);
  EXPECT_EQ(config.head_v_dim(), 6);
  EXPECT_EQ(config.norm_eps, 1e-5);
  EXPECT_FALSE(config.use_inner_decay);
  EXPECT_TRUE(config.use_output_correction);
  EXPECT_FALSE(config.use_short_conv);
  EXPECT_EQ(config.correction_factor, 0.02);
  EXPECT_FALSE(config.learn_correction_factor);
  EXPECT_EQ(config.A_init_max, 1.5);
  EXPECT_TRUE(config.tie_word_embeddings);
  ASSERT_TRUE(config.attn.has_value());
  EXPECT_EQ(config.attn->layers, std::vector<int64_t>{1});
  EXPECT_EQ(config.attn->window_size, 7);
  EXPECT_EQ(config.attn->rope_theta, 500);
}

TEST(ModelConfig, AForeignFileMeansFlasConventionAndDefaults) {
  Json json = small_comba();
  json.erase("intermediate_size");
  const ModelConfig config = parse(json);
  EXPECT_EQ(config.convention, "fla");
  EXPECT_EQ(config.num_v_heads, 2);
  EXPECT_EQ(config.correction_factor, 1.0);
  EXPECT_EQ(config.intermediate_size, 256);  // 256 ceil(21 / 256)
  EXPECT_FALSE(config.attn.has_value());
}

TEST(ModelConfig, AnUnsupportedModelTypeIsNamed) {
  const auto parse_samba = [] { parse_model_config(R"({"model_type": "samba", "state_size": 16})"); };
  EXPECT_THAT(parse_samba, Throws<Error>(Property(&Error::code, ErrorCode::unsupported)));
  EXPECT_THAT(parse_samba, ThrowsMessage<Error>(HasSubstr("comba, gated_deltanet, transformer, linear_attn")));
  EXPECT_THAT(parse_samba, ThrowsMessage<Error>(HasSubstr("miras; got samba")));
}

struct BadConfig {
  Json change;
  const char* complaint;
};

class BadModelConfig : public testing::TestWithParam<BadConfig> {};

INSTANTIATE_TEST_SUITE_P(
    ModelConfig, BadModelConfig,
    testing::Values(
        BadConfig{{{"hiden_size", 8}}, "unknown key hiden_size; the nearest known is hidden_size"},
        BadConfig{{{"hidden_size", nullptr}}, "key hidden_size is missing"},
        BadConfig{{{"hidden_size", "8"}}, "hidden_size must be a whole number; got \"8\""},
        BadConfig{{{"hidden_size", 8.5}}, "hidden_size must be a whole number; got 8.5"},
        BadConfig{{{"hidden_size", 18446744073709551615u}}, "hidden_size must be a whole number"},
        BadConfig{{{"hidden_size", 0}}, "hidden_size must be from 1 to"},
        BadConfig{{{"num_hidden_layers", -1}}, "num_hidden_layers must be from 1 to"},
        BadConfig{{{"norm_eps", 0}}, "norm_eps must be positive; got 0"},
        BadConfig{{{"tie_word_embeddings", 1}}, "tie_word_embeddings must be true or false; got 1"},
        BadConfig{{{"num_v_heads", 3}}, "num_v_heads must be a multiple of num_heads; got 3 and 2"},
        BadConfig{{{"head_dim", 320}}, "head_dim must be from 1 to 256; got 320"},
        BadConfig{{{"expand_v", 0.3}}, "head_dim * expand_v must be a whole number; got 4 * 0.3"},
        BadConfig{{{"comba_convention", "papre"}}, "comba_convention must be paper or fla; got papre"},
        BadConfig{{{"hidden_act", "gelu"}}, "hidden_act must be \"swish\"; got \"gelu\""},
        BadConfig{{{"attnres_block_size", 4}}, "attnres_block_size must be null; got 4"},
        BadConfig{{{"attn", {{"layers", {2}}, {"num_heads", 2}}}}, "attn.layers must be from 0 to 1; got 2"},
        BadConfig{{{"attn", {{"layers", {1, 1}}, {"num_heads", 2}}}}, "must name a layer once; got 1 twice"},
        BadConfig{{{"attn", {{"layers", {1}}, {"num_heads", 3}}}}, "must be an even multiple of the attention heads"},
        BadConfig{{{"attn", {{"layer", {1}}, {"num_heads", 2}}}}, "attn.layers must be a list of layers; got null"},
        BadConfig{{{"attn", {{"layers", {1}}, {"num_heads", 2}, {"windowsize", 2}}}},
                  "unknown key attn.windowsize; the nearest known is attn.window_size"}));

TEST_P(BadModelConfig, IsRefusedWithItsReason) {
  Json json = small_comba();
  ASSERT_NO_THROW(parse(json));
  json.update(GetParam().change);
  EXPECT_THAT([&] { parse(json); }, ThrowsMessage<Error>(HasSubstr(GetParam().complaint)));
}

TEST(ModelConfig, TextThatIsNoObjectIsRefused) {
  EXPECT_THAT([] { parse_model_config("{\"model_type\": "); }, ThrowsMessage<Error>(HasSubstr("must be JSON")));
  EXPECT_THAT([] { parse_model_config("[1]"); }, ThrowsMessage<Error>(HasSubstr("must be a JSON object; got array")));
}

TEST(ModelConfig, ErrorsNameTheFile) {
  const auto missing = kConfigs / "no-such-model.json";
  EXPECT_THAT([&] { load_model_config(missing); },
              Throws<Error>(AllOf(Property(&Error::code, ErrorCode::io),
                                  Property(&Error::what, HasSubstr("no-such-model.json")))));
}

}  // namespace
}  // namespace comba::models
