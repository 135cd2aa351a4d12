#include "training/step_data.h"

#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <algorithm>
#include <utility>

#include "training/document_borders.h"

namespace comba::training {
namespace {

using c10::impl::VirtualGuardImpl;

c10::Stream current_stream(c10::Device device) { return VirtualGuardImpl(device.type()).getStream(device); }

}  // namespace

StepData::StepData(Mixture mixture, MixtureSampler sampler, c10::Device device, std::optional<std::int64_t> bos)
    : mixture_(std::move(mixture)), sampler_(std::move(sampler)), device_(device), bos_(bos) {
  if (device.is_cpu()) return;
  copying_ = VirtualGuardImpl(device.type()).getStreamFromGlobalPool(device);
  work_begins_.emplace(device.type());
  work_begins_->record(current_stream(device));
}

/// A copy in `place`, which lasts, by way of memory that a GPU can read; on the CPU the tensor itself.
at::Tensor StepData::to_device(const at::Tensor& tensor, Place& place) const {
  if (device_.is_cpu()) return tensor;
  if (!place.on_device.defined() || place.on_device.sizes() != tensor.sizes()) {
    place.on_host = at::empty(tensor.sizes(), tensor.options().pinned_memory(true));
    place.on_device = at::empty(tensor.sizes(), tensor.options().device(device_));
  }
  place.on_host.copy_(tensor);
  place.on_device.copy_(place.on_host, /*non_blocking=*/true);
  return place.on_device;
}

StepData::Load StepData::load(const StepWindows& windows) {
  const Batch on_host = read_batch(mixture_, sampler_, windows.first_sample, windows.num_samples);
  Places& places = places_[next_place_];
  next_place_ = 1 - next_place_;
  if (places.arrived) places.arrived->synchronize();
  std::optional<c10::StreamGuard> guard;
  if (copying_) {
    guard.emplace(*copying_);
    work_begins_->block(*copying_);  // what the step before this one has read is free
  }
  const Batch here = {.input_ids = to_device(on_host.input_ids, places.input_ids),
                      .labels = to_device(on_host.labels, places.labels)};
  Load load{.windows = windows, .micro_batches = {}, .arrived = nullptr};
  for (std::int64_t first = 0; first < windows.num_samples; first += windows.micro_batch_size) {
    const std::int64_t count = std::min(windows.micro_batch_size, windows.num_samples - first);
    MicroBatch part{
        .batch = {.input_ids = here.input_ids.narrow(0, first, count), .labels = here.labels.narrow(0, first, count)},
        .num_labels = on_host.labels.narrow(0, first, count).ne(data::kIgnoredLabel).sum().item<std::int64_t>()};
    if (bos_) {
      part.cu_seqlens = document_borders(on_host.input_ids.narrow(0, first, count), *bos_).to(device_);
      part.batch.input_ids = part.batch.input_ids.view({1, -1});
      part.batch.labels = part.batch.labels.view({1, -1});
    }
    load.micro_batches.push_back(std::move(part));
  }
  if (copying_) {
    places.arrived.emplace(device_.type());
    places.arrived->record(*copying_);
    load.arrived = &*places.arrived;
  }
  return load;
}

std::vector<MicroBatch> StepData::take(const StepWindows& windows) {
  Load load = prefetched_ && prefetched_->windows == windows ? std::move(*prefetched_) : this->load(windows);
  prefetched_.reset();
  if (load.arrived != nullptr) load.arrived->block(current_stream(device_));
  return std::move(load.micro_batches);
}

void StepData::before_work() {
  if (copying_) work_begins_->record(current_stream(device_));
}

void StepData::prefetch(const StepWindows& windows) {
  if (copying_) prefetched_ = load(windows);
}

}  // namespace comba::training
