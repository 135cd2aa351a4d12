#include "tasks/sweep.h"

#include <ATen/Context.h>

#include <optional>

#include "base/message.h"
#include "tasks/mixer_spec.h"
#include "tasks/sweep_results.h"

namespace comba::tasks {
namespace fs = std::filesystem;
namespace {

/// Of the model's: the marks of selective copying are among the tokens.
ModelSizes sizes_of(const Sweep& sweep, const Cell& cell, std::int64_t vocab) {
  return {
      .vocab = vocab, .hidden_size = cell.hidden_size, .num_layers = sweep.num_layers, .num_heads = sweep.num_heads};
}

std::vector<Cell> cells_of(const Sweep& sweep, const DataSpec& data) {
  std::vector<Cell> cells;
  for (const std::int64_t hidden_size : sweep.hidden_sizes) {
    for (const double rate : sweep.learning_rates) {
      for (const std::string& mixer : sweep.mixers) cells.push_back({data.name, mixer, hidden_size, rate});
    }
  }
  return cells;
}

/// Before hours are spent on the cells in front of a wrong one.
void validate_sweep(const Sweep& sweep) {
  require(sweep.num_layers >= 2, ErrorCode::invalid_argument,
          "[sweep] there must be at least 2 layers, the first of which is a convolution; got ", sweep.num_layers);
  require(sweep.training.epochs > 0, ErrorCode::invalid_argument, "[sweep] there must be at least 1 epoch; got ",
          sweep.training.epochs);
  for (const double rate : sweep.learning_rates) {
    require(rate > 0, ErrorCode::invalid_argument, "[sweep] a learning rate must be positive; got ", rate);
  }
  for (const DataSpec& data : sweep.data_sets) {
    validate(data);
    const std::vector<Cell> cells = cells_of(sweep, data);
    require(!cells.empty(), ErrorCode::invalid_argument,
            "[sweep] there must be at least one mixer, one width and one learning rate");
    for (const Cell& cell : cells) mixer_config(cell.mixer, sizes_of(sweep, cell, data.vocab));
  }
}

}  // namespace

std::string Cell::name() const { return concat(data_set, '-', mixer, "-d", hidden_size, "-lr", learning_rate); }

fs::path results_path(const fs::path& directory) { return directory / "results.json"; }

void run_sweep(const Sweep& sweep, const fs::path& directory, bool resume, at::Device device, SweepObserver& observer,
               const StopFlag& stop) {
  validate_sweep(sweep);
  SweepResults results(sweep, directory, resume);
  if (device.is_cuda()) at::globalContext().setAllowTF32CuBLAS(true);
  std::int64_t index = 0, count = 0;
  for (const DataSpec& spec : sweep.data_sets) count += std::ssize(cells_of(sweep, spec));
  for (const DataSpec& spec : sweep.data_sets) {
    std::optional<TaskData> data;  // made for the first cell that needs it
    for (const Cell& cell : cells_of(sweep, spec)) {
      const std::int64_t number = index++;
      if (results.has(cell)) continue;
      if (!data) {
        observer.on_data(spec);
        data = make_data(spec).to(device);
      }
      observer.on_cell(cell, number, count);
      const fs::path checkpoint = directory / (cell.name() + ".safetensors");
      TaskTraining training = sweep.training;
      training.learning_rate = cell.learning_rate;
      const TaskResult result = train_task({.model = mixer_config(cell.mixer, sizes_of(sweep, cell, data->vocab)),
                                            .data = *data,
                                            .batch_size = spec.batch_size,
                                            .test_batch_size = spec.test_batch_size,
                                            .training = training,
                                            .checkpoint = checkpoint},
                                           observer, stop);
      results.add(cell, result, device);
      std::error_code ignored;
      fs::remove(checkpoint, ignored);
      observer.on_result(cell, result);
    }
  }
}

}  // namespace comba::tasks
