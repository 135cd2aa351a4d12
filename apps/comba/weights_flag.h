#pragma once

#include <string>

#include "models/causal_lm.h"

namespace CLI {
class App;
}

namespace comba::cli {

/// Adds --weights to a command: as what a model's matrices are kept in memory.
void add_weights_flag(CLI::App& command, std::string& weights);

/// Keeps them so. To be called when the model is on its device and has its dtype.
void keep_weights_as(const std::string& weights, models::CausalLM& model);

}  // namespace comba::cli
