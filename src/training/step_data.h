#pragma once

#include <c10/core/Event.h>
#include <torch/types.h>

#include <array>
#include <cstdint>
#include <optional>
#include <vector>

#include "training/batch.h"
#include "training/mixture.h"

namespace comba::training {

/// Windows of one forward and backward pass, on the device of the model.
struct MicroBatch {
  Batch batch;                  ///< [B, T], or [1, B T] with cu_seqlens
  at::Tensor cu_seqlens = {};   ///< [N + 1] i64; undefined: each window is one sequence
  std::int64_t num_labels = 0;  ///< to be learned
};

/// Windows [first_sample, first_sample + num_samples) of a run, micro_batch_size of them at a time.
struct StepWindows {
  std::int64_t first_sample = 0;
  std::int64_t num_samples = 0;
  std::int64_t micro_batch_size = 0;

  bool operator==(const StepWindows&) const = default;
};

/// Reads what the steps of a run are trained on and brings it to the model's device. On a GPU the windows of the next
/// step travel while this one is computed.
class StepData {
 public:
  /// bos: windows are cut into documents at this token, and none sees another. The data sets must outlive this object.
  StepData(Mixture mixture, MixtureSampler sampler, c10::Device device, std::optional<std::int64_t> bos);

  /// The micro-batches of a step; they stay as they are until take() is called for the second time after this.
  std::vector<MicroBatch> take(const StepWindows& windows);

  /// To be called before the work on what take() gave is started, and after it, with the windows of the next step.
  void before_work();
  void prefetch(const StepWindows& windows);

 private:
  struct Load {
    StepWindows windows;
    std::vector<MicroBatch> micro_batches;
    const c10::Event* arrived;  // none on the CPU
  };

  /// Where a tensor goes on its way to a GPU.
  struct Place {
    at::Tensor on_host, on_device;
  };
  struct Places {
    Place input_ids, labels;
    std::optional<c10::Event> arrived;
  };

  Load load(const StepWindows& windows);
  at::Tensor to_device(const at::Tensor& tensor, Place& place) const;

  Mixture mixture_;
  MixtureSampler sampler_;
  c10::Device device_;
  std::optional<std::int64_t> bos_;
  std::optional<c10::Stream> copying_;     // stream of the copies
  std::optional<c10::Event> work_begins_;  // of the step at hand
  std::array<Places, 2> places_;           // of this step and of the next
  std::size_t next_place_ = 0;
  std::optional<Load> prefetched_;
};

}  // namespace comba::training
