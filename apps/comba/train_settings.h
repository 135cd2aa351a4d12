#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

#include "models/model_config.h"
#include "run_config.h"
#include "training/train_config.h"

namespace comba::cli {

/// A data set to train on, and its share beside the others.
struct MixtureEntry {
  std::filesystem::path path;
  double weight = 1;
};

/// A run file of `comba train`, section by section.
struct TrainSettings {
  models::ModelConfig model;            ///< [model]   keys of config.json; `file` names one to start from
  std::filesystem::path initial_model;  ///< [model]   init: a model directory or run, for its weights and config.json
  std::filesystem::path data;           ///< [data]    path: held-out text, and without a mixture what is trained on
  std::vector<MixtureEntry> mixture;    ///< [data]    mixture = [{path = "DIR", weight = 1.0}, ...]
  training::TrainConfig train;          ///< [train]   fields of TrainConfig
  std::int64_t threads = 0;             ///< [train]   threads; 0: as many as LibTorch takes by itself
  std::int64_t zero_stage = 1;          ///< [train]   zero_stage: 1, or 2 to share out the gradients too
  std::int64_t diagnostics = 0;         ///< [train]   diagnostics_interval: steps between them; 0: none
  std::string device = "cpu";           ///< [train]   device: cpu, cuda or cuda:N
  std::filesystem::path output;         ///< [output]  path
};

/// Reads the sections and refuses whatever else `config` holds. Throws Error(invalid_argument) naming the key; io for a
/// model file that cannot be read.
TrainSettings read_train_settings(RunConfig& config);

}  // namespace comba::cli
