#include "generation/state_file.h"

#include <gtest/gtest.h>

#include <fstream>

#include "base/file.h"
#include "comba/error.h"
#include "generation/generate.h"
#include "generation/model_for_test.h"
#include "models/safetensors.h"

namespace comba::generation {
namespace {

constexpr const char* kTokenizer = R"({"type": "bytes"})";

models::ModelConfig hybrid_config() {
  models::ModelConfig config = testing::tiny_model_config();
  config.attn = models::AttentionConfig{.layers = {1}, .num_heads = 2, .num_kv_heads = 1, .window_size = {}};
  return config;
}

TextState read_text(models::CausalLM& model, std::int64_t length) {
  const Prompt prompt{some_tokens(length, 3)};
  return generate(model, {&prompt, 1}, {.max_tokens = 0, .keep_states = true})[0].state.value();
}

class StateFile : public ::testing::Test {
 protected:
  /// What load_state() says of the file.
  std::pair<ErrorCode, std::string> refusal(models::CausalLM& model, const std::string& tokenizer = kTokenizer) {
    try {
      load_state(model, tokenizer, path_);
    } catch (const Error& error) {
      return {error.code(), error.what()};
    }
    return {ErrorCode::internal, "nothing"};
  }

  void expect_refusal(models::CausalLM& model, ErrorCode code, const std::string& part) {
    const auto [actual_code, text] = refusal(model);
    EXPECT_EQ(actual_code, code) << text;
    EXPECT_NE(text.find(part), std::string::npos) << text;
  }

  const testing::TemporaryDirectory directory_;
  const std::filesystem::path path_ = directory_.path() / "text.state";
};

TEST_F(StateFile, GivesBackTheSameBits) {
  for (const auto& config : {testing::tiny_model_config(), hybrid_config()}) {
    models::CausalLM model = decided_model(config);
    const TextState saved = read_text(model, 90);
    save_state(saved, model, kTokenizer, path_);
    const TextState loaded = load_state(model, kTokenizer, path_);
    EXPECT_EQ(loaded.model.position, 90);
    EXPECT_EQ(loaded.recent_tokens, saved.recent_tokens);
    EXPECT_EQ(loaded.recent_tokens.size(), 64u);
    EXPECT_TRUE(at::equal(loaded.next_logits, saved.next_logits));
    ASSERT_EQ(loaded.model.layers.size(), saved.model.layers.size());
    for (std::size_t layer = 0; layer < saved.model.layers.size(); ++layer) {
      const auto &a = loaded.model.layers[layer].tensors, &b = saved.model.layers[layer].tensors;
      ASSERT_EQ(a.size(), b.size());
      for (std::size_t i = 0; i < a.size(); ++i) EXPECT_TRUE(at::equal(a[i], b[i])) << layer << ' ' << i;
    }
    const std::vector<Prompt> both = {{.tokens = {}, .after = &saved}, {.tokens = {}, .after = &loaded}};
    const auto texts = generate(model, both, {.max_tokens = 10, .sampling = {.temperature = 0}, .batch_size = 1});
    EXPECT_EQ(texts[0].tokens, texts[1].tokens);
  }
}

TEST_F(StateFile, IsOfOneSizeForTextsOfAnyLength) {
  models::CausalLM model = decided_model(testing::tiny_model_config());
  save_state(read_text(model, 100), model, kTokenizer, path_);
  const auto size = std::filesystem::file_size(path_);
  save_state(read_text(model, 999), model, kTokenizer, path_);
  EXPECT_EQ(std::filesystem::file_size(path_), size);
}

TEST_F(StateFile, OfAnotherModelOrTokenizerIsRefused) {
  models::CausalLM model = decided_model(testing::tiny_model_config());
  save_state(read_text(model, 9), model, kTokenizer, path_);
  models::CausalLM other_weights = decided_model(testing::tiny_model_config(), /*seed=*/3);
  models::CausalLM other_layers = decided_model(hybrid_config());
  expect_refusal(other_layers, ErrorCode::invalid_argument, "its configuration is another");
  expect_refusal(other_weights, ErrorCode::invalid_argument, "its weights are others");
  const auto [code, text] = refusal(model, R"({"type": "other"})");
  EXPECT_EQ(code, ErrorCode::invalid_argument);
  EXPECT_NE(text.find("must be of this tokenizer"), std::string::npos) << text;
}

TEST_F(StateFile, ThatIsDamagedOrNoStateIsRefused) {
  models::CausalLM model = decided_model(testing::tiny_model_config());
  expect_refusal(model, ErrorCode::io, "text.state");
  models::write_safetensors(path_, {{"x", at::ones({2})}});
  expect_refusal(model, ErrorCode::io, "must be a text state");

  const TextState state = read_text(model, 9);
  save_state(state, model, kTokenizer, path_);
  const auto [tensors, metadata] = models::read_safetensors(path_);
  const auto rewrite = [&](const auto& change) {
    models::NamedTensors changed_tensors;
    for (const auto& [name, tensor] : tensors) changed_tensors[name] = tensor.clone();
    models::Metadata changed_metadata = metadata;
    change(changed_tensors, changed_metadata);
    models::write_safetensors(path_, changed_tensors, changed_metadata);
  };
  rewrite([](auto& all, auto&) { all.erase("layers.1.0"); });
  expect_refusal(model, ErrorCode::io, "must hold layers.1.0");
  rewrite([](auto& all, auto&) { all["layers.0.3"] = at::zeros({1, 4, 16, 15}); });
  expect_refusal(model, ErrorCode::io, "layers.0.3");
  rewrite([](auto& all, auto&) { all["next_logits"] = at::zeros({264}, at::kHalf); });
  expect_refusal(model, ErrorCode::io, "next_logits");
  rewrite([](auto& all, auto&) { all["recent_tokens"] = at::full({1}, 264, at::kLong); });
  expect_refusal(model, ErrorCode::io, "recent_tokens");
  rewrite([](auto&, auto& data) { data["position"] = "9x"; });
  expect_refusal(model, ErrorCode::io, "position");

  const std::string content = read_file(path_);
  std::ofstream(path_, std::ios::trunc) << content.substr(0, content.size() / 2);
  expect_refusal(model, ErrorCode::io, "text.state");
}

}  // namespace
}  // namespace comba::generation
