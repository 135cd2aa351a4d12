#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "nn/mixers/mixer.h"

namespace comba::models {

/// A mixer of one layer in a model of a given width.
struct MixerRow {
  std::string name;        ///< as papers call it
  std::string model_type;  ///< as config.json spells the models made of it
  nn::MixerFacts facts;
  int64_t num_parameters = 0;
  double flops = 0;  ///< multiplications and additions a token, linear maps and rule
};

/// Every mixer that there is, open loops first, after `num_tokens` tokens. Allocates no weights.
/// Throws Error invalid_argument unless hidden_size is a multiple of 256 and num_tokens is positive.
std::vector<MixerRow> mixer_table(int64_t hidden_size, int64_t num_tokens);

}  // namespace comba::models
