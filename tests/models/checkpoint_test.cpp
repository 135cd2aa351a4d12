#include "models/checkpoint.h"

#include <gmock/gmock.h>

#include <functional>

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

TEST(Checkpoint, AFolderWithoutAModelIsNamed) {
  const TemporaryDirectory directory;
  EXPECT_THAT([&] { load_model(directory.path()); }, Throws<Error>(Property(&Error::code, ErrorCode::io)));
  EXPECT_THAT([&] { load_model(directory.path()); }, ThrowsMessage<Error>(HasSubstr("config.json")));
}

}  // namespace
}  // namespace comba::models
