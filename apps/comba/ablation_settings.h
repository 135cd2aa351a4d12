#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "ablation/ablation.h"
#include "run_config.h"

namespace comba::cli {

/// A file of `comba ablate`, section by section.
struct AblationSettings {
  ablation::Ablation
      ablation;  ///< [model] keys of config.json of the base; [train]; [ablation] seeds, [[ablation.variants]], ...
  std::filesystem::path data;    ///< [data]    path
  std::filesystem::path output;  ///< [output]  path
};

/// Reads the sections and refuses whatever else `config` holds. Of variants and seeds only the chosen ones stay, where
/// some are chosen. Throws Error(invalid_argument) naming the key.
AblationSettings read_ablation_settings(RunConfig& config, const std::vector<std::string>& chosen_variants,
                                        const std::vector<std::int64_t>& chosen_seeds);

}  // namespace comba::cli
