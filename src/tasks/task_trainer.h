#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

#include "base/interrupted.h"
#include "base/stop_flag.h"
#include "models/model_config.h"
#include "tasks/task_data.h"

namespace comba::tasks {

/// How a model learns a task: AdamW with betas 0.9 and 0.999, and decay of every parameter; the rate falls by half a
/// cosine, constant within an epoch: lr (1 + cos(pi e / epochs)) / 2 in epoch e, from 0.
struct TaskTraining {
  std::int64_t epochs = 64;
  double learning_rate = 1e-3;
  double weight_decay = 0.1;
  double stop_accuracy = 0.99;  ///< training ends after an epoch with more than this on the test set
  std::uint64_t seed = 123;     ///< of weights and dropout; the data have their own
};

/// One test segment's result: of all its labels, the share that the likeliest token met.
struct SliceAccuracy {
  std::int64_t slice = 0;  ///< see TaskData::slice_name
  std::int64_t length = 0;
  std::int64_t examples = 0;
  double accuracy = 0;
};

struct EpochRecord {
  double learning_rate = 0;
  double loss = 0;      ///< mean of the epoch's steps, nats a label
  double accuracy = 0;  ///< on the test set, each example counting alike
};

/// Where training stands after each epoch, and at its end the result.
struct TaskProgress {
  std::int64_t step = 0;  ///< batches trained on
  double seconds = 0;     ///< of computation, those before an interruption included
  bool diverged = false;  ///< the loss was no finite number: training ended
  std::vector<EpochRecord> epochs;
  std::vector<SliceAccuracy> slices;  ///< after the last of the epochs
};

struct TaskResult {
  std::int64_t num_parameters = 0;
  std::int64_t state_bytes = 0;  ///< of one sequence at the end of the longest test, see RecallModel::state_bytes
  TaskProgress progress;
};

/// Is told how training goes, in the thread that trains.
class TaskObserver {
 public:
  virtual ~TaskObserver() = default;
  virtual void on_start(std::int64_t num_parameters, std::int64_t state_bytes, const TaskProgress& progress,
                        std::int64_t steps_per_epoch) = 0;
  /// Now and then: reading the loss waits for the device.
  virtual void on_loss(const TaskProgress& progress, double loss) = 0;
  virtual void on_epoch(const TaskProgress& progress) = 0;
};

struct TaskRun {
  models::ModelConfig model;
  const TaskData& data;  ///< on the device to compute on
  std::int64_t batch_size = 0;
  std::int64_t test_batch_size = 0;
  TaskTraining training;
  std::filesystem::path checkpoint;  ///< file that holds what is not finished; read when it is there
};

/// Trains to the end. The same run has the same bits on a CPU, given the same number of threads, whether it was
/// interrupted or not. When `stop` is requested, saves and throws Interrupted. Throws Error(io) for a checkpoint that
/// is damaged or of another model.
TaskResult train_task(const TaskRun& run, TaskObserver& observer, const StopFlag& stop);

}  // namespace comba::tasks
