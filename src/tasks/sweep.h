#pragma once

#include <c10/core/Device.h>

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "base/stop_flag.h"
#include "tasks/task_data.h"
#include "tasks/task_trainer.h"

namespace comba::tasks {

/// Models to be compared on the data sets of one setting: every mixer at every width and learning rate is a cell.
struct Sweep {
  std::string setting;  ///< a name for the data sets together
  std::vector<DataSpec> data_sets;
  std::vector<std::string> mixers;  ///< see mixer_config
  std::vector<std::int64_t> hidden_sizes;
  std::vector<double> learning_rates;
  std::int64_t num_heads = 2;
  std::int64_t num_layers = 2;
  TaskTraining training;  ///< its learning rate is each cell's
};

struct Cell {
  std::string data_set;
  std::string mixer;
  std::int64_t hidden_size = 0;
  double learning_rate = 0;

  /// "64x4-comba-d64-lr0.001".
  std::string name() const;
};

/// Is told what happens in a sweep, and within a cell as TaskObserver.
class SweepObserver : public TaskObserver {
 public:
  /// Before the data of a data set are made, which may take a while.
  virtual void on_data(const DataSpec& spec) = 0;
  /// Cell number `index` of `count`, from 0. Cells that an earlier run finished are passed over.
  virtual void on_cell(const Cell& cell, std::int64_t index, std::int64_t count) = 0;
  virtual void on_result(const Cell& cell, const TaskResult& result) = 0;
};

/// DIR/results.json, in which each cell stands as soon as it is finished.
std::filesystem::path results_path(const std::filesystem::path& directory);

/// Runs the cells one after the other and leaves DIR/results.json:
///
///     {"setting": "mixture", "data_sets": [...], "model": {...}, "training": {...},
///      "cells": [{"data_set": "mixture", "mixer": "comba", "hidden_size": 128, "learning_rate": 0.001,
///                 "device": "cpu", "threads": 2, "tf32": false, "parameters": 1, "state_bytes": 1, "accuracy": 0.99,
///                 "step": 1, "seconds": 1.0, "diverged": false,
///                 "slices": [{"slice": 4, "length": 64, "examples": 1000, "accuracy": 1.0}],
///                 "epochs": [{"learning_rate": 0.001, "loss": 9.0, "accuracy": 0.1}]}]}
///
/// and, while a cell is not finished, DIR/CELL.safetensors. With `resume` finished cells stay and the others are done;
/// all but mixers, widths and learning rates must then be as before. On a GPU matrix products may use TF32.
///
/// Throws Error: invalid_argument for a sweep that makes no sense, a directory that holds results and no `resume`, or
/// results of another setting; io; Interrupted when `stop` is requested, everything being saved.
void run_sweep(const Sweep& sweep, const std::filesystem::path& directory, bool resume, at::Device device,
               SweepObserver& observer, const StopFlag& stop);

}  // namespace comba::tasks
