#pragma once

#include <c10/core/Device.h>

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "ablation/heldout_text.h"
#include "ablation/train_cell.h"
#include "ablation/variant.h"
#include "base/stop_flag.h"
#include "data/token_dataset.h"
#include "training/train_config.h"

namespace comba::ablation {

/// Models that are trained alike, each once for each seed: with a seed all see the same text in the same order.
struct Ablation {
  std::vector<Variant> variants;  ///< the first one is the base that the others are compared with
  std::vector<std::int64_t> seeds;
  training::TrainConfig train;  ///< its seed is each cell's
  HeldoutOptions heldout;
  std::int64_t points = 20;  ///< of each learning curve
};

struct Cell {
  const Variant* variant = nullptr;
  std::int64_t seed = 0;

  /// "no-output-gate-seed2".
  std::string name() const;
};

/// Where and by what the cells are made: part of the results.
struct Provenance {
  std::string program;  ///< and its version
  std::string commit;
};

class AblationObserver : public CellObserver {
 public:
  /// Cell number `index` of `count`, from 0, those of earlier runs included.
  virtual void on_cell(const Cell& cell, std::int64_t index, std::int64_t count) = 0;
  virtual void on_result(const Cell& cell, const CellResult& result) = 0;
};

/// DIR/results.json:
///
///     {"kind": "ablation", "train": {...}, "data": {...}, "heldout": {...},
///      "cells": [{"variant": "no-output-gate", "seed": 1, "changes": {"use_output_gate": false}, "paper": {...},
///                 "model": {...}, "device": "NVIDIA H200", "threads": 1, "program": "comba 0.1.0", "commit": "...",
///                 "parameters": 1, "tokens": 1, "seconds": 1.0, "diverged": false, "train_loss": 1.0,
///                 "heldout": {"loss": 1.0, "bits_per_byte": 1.0, "tokens": 1, "recalled_loss": 1.0, "recalled_tokens":
///                 1}, "curve": [{"step": 1, "loss": 1.0, "heldout_loss": null}]}]}
///
/// A cell that diverged has no "heldout".
std::filesystem::path results_path(const std::filesystem::path& directory);

/// Begins DIR/results.json, or goes on with it. Throws Error(invalid_argument) for a comparison that makes no sense,
/// and when it cannot go on with what is there: see ResultsFile.
void prepare_results(const Ablation& ablation, const data::TokenDataset& train, const data::TokenDataset& heldout,
                     const std::filesystem::path& directory, bool resume);

/// What one process does of it.
struct AblationRun {
  const Ablation& ablation;
  const data::TokenDataset& train;
  const data::TokenDataset& heldout;
  std::filesystem::path directory;
  c10::Device device;
  training::StepOptions step = {};
  Provenance provenance = {};
  std::atomic<std::int64_t>& next_cell;  ///< shared by all processes
};

/// Trains cells that nobody has begun until there are none left, those of the first seed before those of the second,
/// and adds each to DIR/results.json. Cells that were finished before stay. A cell at hand has its checkpoint in
/// DIR/cells. Throws as train_cell does.
void run_cells(const AblationRun& run, AblationObserver& observer, const StopFlag& stop);

}  // namespace comba::ablation
