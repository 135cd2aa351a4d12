#pragma once

#include <filesystem>
#include <fstream>
#include <string>

#include "data/pack.h"
#include "data/token_dataset.h"
#include "models/causal_lm.h"
#include "support/temporary_directory.h"

/// A model and a text small enough to train in milliseconds.
namespace comba::testing {

/// Two layers of two heads, and as many details of the real thing as fit: GVA, an MLP, tied embeddings.
inline models::ModelConfig tiny_model_config() {
  models::ModelConfig config;
  config.hidden_size = 32;
  config.num_hidden_layers = 2;
  config.num_heads = 2;
  config.num_v_heads = 4;
  config.head_dim = 16;
  config.intermediate_size = 48;
  config.vocab_size = 264;
  config.initializer_range = 0.02;
  return config;
}

/// `num_words` words that repeat enough for a tiny model to learn something. The same seed gives the same text.
inline std::string tiny_text(int num_words, unsigned seed) {
  constexpr const char* kWords[] = {"state ", "query ", "is ", "the ", "key ", "read;\n", "decays ", "\xC3\xA9tat "};
  std::string text;
  for (int i = 0; i < num_words; ++i) {
    seed = seed * 1664525u + 1013904223u;
    text += kWords[seed >> 29];
  }
  return text;
}

/// A packed data set of 60 documents of 5 to 64 words; some of them held out.
class TinyDataset {
 public:
  TinyDataset() {
    const std::filesystem::path texts = directory_.path() / "texts";
    std::filesystem::create_directories(texts);
    for (int i = 0; i < 60; ++i) {
      std::ofstream(texts / ("text" + std::to_string(i))) << tiny_text(5 + i, static_cast<unsigned>(i));
    }
    data::pack({.inputs = {texts}, .output = path()});
  }

  std::filesystem::path path() const { return directory_.path() / "packed"; }
  data::TokenDataset open(data::Split split) const { return data::TokenDataset::open(path(), split); }

 private:
  TemporaryDirectory directory_;
};

/// A data set of answers to prompts.
class MaskedDataset {
 public:
  MaskedDataset() {
    std::ofstream file(directory_.path() / "a.jsonl");
    for (int i = 0; i < 60; ++i) {
      file << R"({"q": "what is )" << std::string(static_cast<std::size_t>(i), '?') << R"(", "text": "answer )" << i
           << "\"}\n";
    }
    file.close();
    data::pack({.inputs = {directory_.path() / "a.jsonl"},
                .output = directory_.path() / "data",
                .records = {.text = "text", .prompt = "q"},
                .shard_tokens = 100});
  }
  data::TokenDataset open() const { return data::TokenDataset::open(directory_.path() / "data", data::Split::train); }

 private:
  TemporaryDirectory directory_;
};

}  // namespace comba::testing
