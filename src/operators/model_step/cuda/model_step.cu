#include "operators/model_step/model_step.h"

#include <algorithm>
#include <deque>

#include "operators/model_step/cuda/step.cuh"

namespace comba::model_step {
namespace {

using namespace cuda;

/// A kernel of one stream that waits for what another has queued so far.
class Handover {
 public:
  Handover() { check_cuda(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming), "cudaEventCreateWithFlags"); }
  ~Handover() { cudaEventDestroy(event_); }
  Handover(const Handover&) = delete;
  Handover& operator=(const Handover&) = delete;

  void give(cudaStream_t from) const { check_cuda(cudaEventRecord(event_, from), "cudaEventRecord"); }
  void take(cudaStream_t to) const { check_cuda(cudaStreamWaitEvent(to, event_, 0), "cudaStreamWaitEvent"); }

 private:
  cudaEvent_t event_ = nullptr;
};

/// The model with the memory of rows from `first` on.
Model rows_from(const Model& model, std::int64_t first) {
  const Dims& x = model.dims;
  Model part = model;
  part.slots += first;
  part.drawn += first;
  part.residual += first * padded(x.D, kTileColumns);
  part.projected += first * padded(x.projections(), kTileColumns);
  part.mixed += first * padded(x.value_channels(), kTileColumns);
  part.squares += first * x.HV * kSlices;
  part.inner += first * padded(std::max<std::int64_t>(x.F, 1), kTileColumns);
  part.logits += first * padded(x.vocab, kTileRows);
  return part;
}

/// Some rows of a step, on a stream.
struct Part {
  Part(const Model& whole, std::int64_t first, std::int64_t rows, CUstream_st* stream)
      : model(rows_from(whole, first)), stream(stream), step(model, rows, stream, /*shares_gpu=*/true) {}

  void follow(const Handover& handover) {
    handover.take(stream);
    step.begin_anew();
  }

  Model model;
  CUstream_st* stream;
  Step step;
  Handover of_states;
};

/// Parts of the rows go side by side, each one kernel of states behind the one before: while one waits for the memory,
/// the others multiply. Without other streams one after the other.
void queue_parts(const Model& model, std::int64_t rows, CUstream_st* stream, std::span<CUstream_st* const> others) {
  const Tuning tuning = Tuning::get();
  const std::int64_t size = padded((rows + tuning.parts - 1) / tuning.parts, 8);
  std::deque<Part> parts;
  for (std::int64_t first = 0; first < rows; first += size) {
    const bool is_other = first > 0 && !others.empty();
    parts.emplace_back(model, first, std::min(size, rows - first), is_other ? others[parts.size() - 1] : stream);
  }
  Step(model, rows, stream).embed_tokens();
  const Handover embedded, done;
  embedded.give(stream);
  for (Part& part : parts) part.follow(embedded);
  for (std::size_t layer = 0; layer < model.layers.size(); ++layer) {
    for (Part& part : parts) part.step.project(layer);
    const bool keeps_turns = tuning.ordered != 0 || (layer == 0 && tuning.stagger != 0);
    const Part* previous = layer == 0 ? nullptr : &parts.back();
    for (Part& part : parts) {
      if (keeps_turns && previous != nullptr) part.follow(previous->of_states);
      part.step.update_states(layer);
      part.of_states.give(part.stream);
      previous = &part;
    }
    for (Part& part : parts) part.step.mix_channels(layer);
  }
  for (Part& part : parts) part.step.choose_tokens();
  for (Part& part : parts) {
    if (part.stream != stream) done.give(part.stream), done.take(stream);
  }
}

}  // namespace

void queue_step(const Model& model, std::int64_t rows, CUstream_st* stream, std::span<CUstream_st* const> others) {
  const int split = Tuning::get().split;
  if (split > 0 && rows >= split && rows > 8) return queue_parts(model, rows, stream, others);
  Step(model, rows, stream).queue();
}

}  // namespace comba::model_step
