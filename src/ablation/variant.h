#pragma once

#include <string>

#include "models/model_config.h"

namespace comba::ablation {

/// A model that is compared with others.
struct Variant {
  std::string name;
  models::ModelConfig model;
  std::string changes = "{}";  ///< JSON: keys of config.json in which it differs from the base
  std::string paper = "{}";    ///< JSON: what its paper reports of it, for tables
};

/// The variant with the keys of `changes` over those of `base`, both JSON objects of config.json. One of another
/// model_type than the base's keeps of it the sizes that all types have: hidden_size, num_hidden_layers,
/// intermediate_size, vocab_size, norm_eps, initializer_range and tie_word_embeddings. Throws
/// Error(invalid_argument), with the name, for one that makes no model or a name that is none of a file.
Variant make_variant(const std::string& name, const std::string& base, const std::string& changes);

}  // namespace comba::ablation
