#include "models/checkpoint.h"

#include <gmock/gmock.h>

#include <functional>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "comba/error.h"
#include "models/safetensors.h"
#include "support/temporary_directory.h"

namespace comba::models {
namespace {

using comba::testing::TemporaryDirectory;
using ::testing::HasSubstr;
using ::testing::Property;
using ::testing::Throws;
using ::testing::ThrowsMessage;

ModelConfig tiny() {
  return load_model_config(std::filesystem::path(COMBA_SOURCE_DIR) / "configs" / "comba-tiny.json");
}

/// A saved model whose tensors were changed before load_model sees them.
std::shared_ptr<CausalLM> reload(const std::function<void(NamedTensors&)>& change) {
  const TemporaryDirectory directory;
  CausalLM model(tiny());
  model.initialize(1);
  save_model(model, directory.path());
  const auto weights = directory.path() / "model.safetensors";
  NamedTensors tensors;
  for (const auto& [name, tensor] : read_safetensors(weights).tensors) tensors[name] = tensor.clone();
  change(tensors);
  write_safetensors(weights, tensors);
  return load_model(directory.path());
}

TEST(Checkpoint, ModelAndConfigurationSurviveARoundTrip) {
  const TemporaryDirectory directory;
  CausalLM model(tiny());
  model.initialize(1);
  save_model(model, directory.path() / "new" / "folder");
  const auto loaded = load_model(directory.path() / "new" / "folder");
  EXPECT_EQ(to_json(loaded->config()), to_json(model.config()));
  const auto expected = model.named_parameters();
  for (const auto& parameter : loaded->named_parameters()) {
    EXPECT_TRUE(at::equal(parameter.value(), expected[parameter.key()])) << parameter.key();
    EXPECT_TRUE(parameter.value().requires_grad()) << parameter.key();
  }
}

TEST(Checkpoint, SixteenBitWeightsBecomeFp32) {
  const auto model = reload([](NamedTensors& tensors) {
    for (auto& [name, tensor] : tensors) tensor = tensor.to(at::kBFloat16);
  });
  EXPECT_EQ(model->parameters()[0].scalar_type(), at::kFloat);
}

TEST(Checkpoint, ATiedModelMayCarryACopyOfItsEmbedding) {
  EXPECT_NO_THROW(
      reload([](NamedTensors& tensors) { tensors["lm_head.weight"] = tensors.at("model.embeddings.weight"); }));
  EXPECT_THAT([] { reload([](NamedTensors& t) { t["lm_head.weight"] = t.at("model.embeddings.weight") + 1; }); },
              ThrowsMessage<Error>(HasSubstr("lm_head.weight must equal model.embeddings.weight")));
}

TEST(Checkpoint, LargeWeightsAreShardedAndReadBackToTheSameBits) {
  const TemporaryDirectory directory;
  CausalLM model(tiny());
  model.initialize(1);
  save_model(model, directory.path());
  constexpr std::int64_t kSmallShard = 64 * 1024;
  save_model(model, directory.path(), kSmallShard);
  EXPECT_FALSE(std::filesystem::exists(directory.path() / "model.safetensors"));
  int num_shards = 0;
  for (const auto& entry : std::filesystem::directory_iterator(directory.path())) {
    const std::string name = entry.path().filename();
    if (name.ends_with(".safetensors")) ++num_shards;
  }
  EXPECT_GE(num_shards, 3);
  const auto loaded = load_model(directory.path());
  const auto expected = model.named_parameters();
  for (const auto& parameter : loaded->named_parameters()) {
    EXPECT_TRUE(at::equal(parameter.value(), expected[parameter.key()])) << parameter.key();
  }
}

class Shards : public ::testing::Test {
 protected:
  Shards() { write_weight_files(path_, {{"a", at::zeros({4})}, {"b", at::ones({4})}, {"c", at::ones({4})}}, 32); }

  void expect_complaint(const std::string& index, const std::string& complaint) {
    write_file_atomically(path_ / "model.safetensors.index.json", index);
    EXPECT_THAT([&] { read_weight_files(path_); }, Throws<Error>(Property(&Error::code, ErrorCode::io)));
    EXPECT_THAT([&] { read_weight_files(path_); }, ThrowsMessage<Error>(HasSubstr(complaint)));
  }

  const TemporaryDirectory directory_;
  const std::filesystem::path path_ = directory_.path();
};

TEST_F(Shards, TheIndexHasTheFormOfHuggingFace) {
  EXPECT_EQ(nlohmann::json::parse(read_file(path_ / "model.safetensors.index.json")), nlohmann::json::parse(R"({
    "metadata": {"total_size": 48},
    "weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00001-of-00002.safetensors",
                   "c": "model-00002-of-00002.safetensors"}})"));
  EXPECT_EQ(read_weight_files(path_).size(), 3u);
}

TEST_F(Shards, AnIndexThatDoesNotFitIsRefused) {
  expect_complaint("{", "must be a JSON object with a weight_map");
  expect_complaint(R"({"weight_map": {"a": "../model.safetensors"}})",
                   "beside the index; got \"../model.safetensors\"");
  expect_complaint(R"({"weight_map": {"a": 1}})", "beside the index; got 1 for a");
  expect_complaint(R"({"weight_map": {"a": "model-00003-of-00003.safetensors"}})", "model-00003-of-00003.safetensors");
  expect_complaint(R"({"weight_map": {"c": "model-00001-of-00002.safetensors"}})", "missing c");
  expect_complaint(R"({"weight_map": {"a": "model-00001-of-00002.safetensors"}})", "every tensor of a shard; got b");
}

TEST(Checkpoint, WhatDoesNotFitIsNamed) {
  const std::string name = "model.layers.1.attn.D";
  EXPECT_THAT([&] { reload([&](NamedTensors& tensors) { tensors.erase(name); }); },
              ThrowsMessage<Error>(HasSubstr("missing; got " + name)));
  EXPECT_THAT([&] { reload([&](NamedTensors& tensors) { tensors[name + ".x"] = tensors.at(name); }); },
              ThrowsMessage<Error>(HasSubstr("the model has not; got " + name + ".x")));
  EXPECT_THAT([&] { reload([&](NamedTensors& tensors) { tensors[name] = at::zeros({3}); }); },
              ThrowsMessage<Error>(HasSubstr(name + " [3] Float for [2]")));
  EXPECT_THAT([&] { reload([&](NamedTensors& tensors) { tensors[name] = at::zeros({2}, at::kInt); }); },
              ThrowsMessage<Error>(HasSubstr(name + " [2] Int for [2]")));
}

/// Where files are wrong nobody has given a wrong argument; a model that they do not fit is one.
TEST(Checkpoint, WhatFilesSayWrongIsAFailureToReadThem) {
  const auto is = [](ErrorCode code) { return Throws<Error>(Property(&Error::code, code)); };
  EXPECT_THAT([] { reload([](NamedTensors& tensors) { tensors.clear(); }); }, is(ErrorCode::io));

  const TemporaryDirectory directory;
  CausalLM model(tiny());
  model.initialize(1);
  save_model(model, directory.path());
  ModelConfig deeper = tiny();
  deeper.num_hidden_layers += 1;
  CausalLM other(deeper);
  EXPECT_THAT([&] { load_weights(other, directory.path()); }, is(ErrorCode::invalid_argument));

  for (const char* text : {"", "{\"model_type\": \"com", "[]", "{\"model_type\": \"comba\"}"}) {
    write_file_atomically(directory.path() / "config.json", text);
    EXPECT_THAT([&] { load_model(directory.path()); }, is(ErrorCode::io)) << text;
    EXPECT_THAT([&] { load_model(directory.path()); }, ThrowsMessage<Error>(HasSubstr("config.json)"))) << text;
  }
}

TEST(Checkpoint, AFolderWithoutAModelIsNamed) {
  const TemporaryDirectory directory;
  EXPECT_THAT([&] { load_model(directory.path()); }, Throws<Error>(Property(&Error::code, ErrorCode::io)));
  EXPECT_THAT([&] { load_model(directory.path()); }, ThrowsMessage<Error>(HasSubstr("config.json")));
}

}  // namespace
}  // namespace comba::models
