#include "ablation/variant.h"

#include <gmock/gmock.h>

#include "base/message.h"

namespace comba::ablation {
namespace {

using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

constexpr const char* kBase =
    R"({"model_type": "comba", "comba_convention": "paper", "hidden_size": 32, "num_hidden_layers": 3, "num_heads": 2,
        "head_dim": 16, "intermediate_size": 48, "vocab_size": 264, "tie_word_embeddings": true,
        "correction_factor": 0.02})";

TEST(Variant, KeepsWhatItDoesNotChange) {
  const Variant variant = make_variant("no-gate", kBase, R"({"use_output_gate": false})");
  EXPECT_EQ(variant.name, "no-gate");
  EXPECT_FALSE(variant.model.use_output_gate);
  EXPECT_TRUE(variant.model.use_inner_decay);
  EXPECT_EQ(variant.model.convention, "paper");
  EXPECT_EQ(variant.model.correction_factor, 0.02);
  EXPECT_EQ(variant.changes, R"({"use_output_gate": false})");
}

TEST(Variant, KeepsOfAnotherTypeTheSizesAlone) {
  const Variant variant = make_variant("transformer", kBase, R"({"model_type": "transformer", "num_heads": 4})");
  EXPECT_EQ(variant.model.hidden_size, 32);
  EXPECT_EQ(variant.model.num_hidden_layers, 3);
  EXPECT_EQ(variant.model.intermediate_size, 48);
  EXPECT_TRUE(variant.model.tie_word_embeddings);
  EXPECT_EQ(variant.model.attn->num_heads, 4);
}

TEST(Variant, SaysWhichMakesNoModel) {
  EXPECT_THAT([] { make_variant("a/b", kBase, "{}"); }, ThrowsMessage<Error>(HasSubstr("got 'a/b'")));
  EXPECT_THAT([] { make_variant("x", kBase, R"({"use_output_gat": false})"); },
              ThrowsMessage<Error>(HasSubstr("[ablation] variant x: [model_config] unknown key use_output_gat")));
}

}  // namespace
}  // namespace comba::ablation
