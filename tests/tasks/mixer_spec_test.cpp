#include "tasks/mixer_spec.h"

#include <gmock/gmock.h>

#include "comba/error.h"

namespace comba::tasks {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

constexpr ModelSizes kSizes = {.vocab = 100, .hidden_size = 64, .num_layers = 3, .num_heads = 4};

TEST(MixerSpec, GivesEveryMixerTheSameSizes) {
  for (const char* name : {"comba", "gated_deltanet"}) {
    const models::ModelConfig config = mixer_config(name, kSizes);
    EXPECT_EQ(config.model_type, name);
    EXPECT_EQ(config.num_heads, 4);
    EXPECT_EQ(config.head_dim, 16);
    EXPECT_EQ(config.head_v_dim(), 16);
    EXPECT_EQ(config.num_hidden_layers, 3);
    EXPECT_EQ(config.vocab_size, 100);
  }
  const models::ModelConfig softmax = mixer_config("softmax", kSizes);
  EXPECT_EQ(softmax.model_type, "transformer");
  EXPECT_EQ(softmax.attn->num_heads, 4);
}

TEST(MixerSpec, TakesKeysOfTheConfiguration) {
  const models::ModelConfig config = mixer_config("comba:comba_rule=iplr:expand_v=2:use_inner_decay=false", kSizes);
  EXPECT_EQ(config.rule, "iplr");
  EXPECT_EQ(config.head_v_dim(), 32);
  EXPECT_FALSE(config.use_inner_decay);
  EXPECT_EQ(mixer_config("softmax:window_size=8", kSizes).attn->window_size, 8);
}

TEST(MixerSpec, SaysWhichMixerMakesNoModel) {
  const auto config = [](const std::string& text, ModelSizes sizes = kSizes) {
    return [=] { mixer_config(text, sizes); };
  };
  EXPECT_THAT(config("cmba"),
              ThrowsMessage<Error>(AllOf(HasSubstr("[mixer] cmba"), HasSubstr("must be one of comba"))));
  EXPECT_THAT(config("comba:use_inner_decy=false"),
              ThrowsMessage<Error>(HasSubstr("the nearest known is use_inner_decay")));
  EXPECT_THAT(config("comba:use_inner_decay"), ThrowsMessage<Error>(HasSubstr("must be key=value")));
  EXPECT_THAT(config("comba", {.vocab = 100, .hidden_size = 64, .num_layers = 2, .num_heads = 3}),
              ThrowsMessage<Error>(HasSubstr("a multiple of its heads; got 64 and 3")));
  EXPECT_THAT(config(""), ThrowsMessage<Error>(HasSubstr("must be one of comba")));
}

}  // namespace
}  // namespace comba::tasks
