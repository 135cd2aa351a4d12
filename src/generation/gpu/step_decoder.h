#pragma once

#include <c10/core/Event.h>

#include <cstdint>
#include <deque>
#include <map>
#include <span>
#include <vector>

#include "generation/gpu/slot_table.h"
#include "generation/gpu/step_model.h"
#include "generation/token_sampler.h"

namespace comba::generation {

/// Texts that a model continues side by side on a GPU, which also draws their tokens. The host queues steps and reads
/// their tokens later, so that the GPU need not wait for it: launch() may be called once more before read().
/// Everything happens on the stream that is current when this is made.
class StepDecoder {
 public:
  /// A model of bf16 weights on a GPU. Throws Error(unsupported) as StepModel does.
  StepDecoder(models::CausalLM& model, std::int64_t num_slots, std::int64_t drawn_vocab,
              at::ScalarType state_dtype = at::kFloat);

  struct Drawn {
    SlotTable::Row text;
    std::int64_t token;
  };

  bool is_full() const { return table_.is_full(); }

  /// Adds a text: the state of one stream, the token that it reads next, and how many were drawn with its seed so far.
  /// `recent`: its last tokens, that one included, oldest first.
  SlotTable::Row join(const models::ModelState& state, std::int64_t token, const SamplingOptions& sampling,
                      std::uint64_t num_drawn, std::span<const std::int64_t> recent);
  void leave(const SlotTable::Row& text) { table_.leave(text.slot); }

  /// Queues one step of all texts.
  void launch();
  /// Steps that are queued and not yet read: at most 2.
  std::size_t num_unread() const { return unread_.size(); }
  /// Waits for the oldest of them. Texts that have left since are not in it.
  /// Throws Error(numerical) when a logit was NaN.
  std::vector<Drawn> read();

  /// The state of a text, and the logits that its last drawn token came from.  [vocab] f32, on the CPU. Both are those
  /// of the last step that was queued.
  models::ModelState state(const SlotTable::Row& text) const { return model_.read_state(text.slot); }
  at::Tensor next_logits(const SlotTable::Row& text) const;

  const StepModel& model() const { return model_; }

 private:
  struct Step {
    std::vector<SlotTable::Row> rows;
    std::int64_t parity;
    c10::Event done;
  };

  void name_slots();
  const model_step::StepGraph& graph(std::int64_t rows);

  StepModel model_;
  SlotTable table_;
  c10::Stream stream_;
  CUstream_st* cuda_stream_;
  std::int64_t vocab_;
  std::map<std::int64_t, model_step::StepGraph> graphs_;  // by the number of rows
  std::vector<SlotTable::Row> named_;                     // the rows of `slots`
  std::uint64_t named_version_ = ~std::uint64_t{0};
  std::int64_t num_steps_ = 0;
  std::deque<Step> unread_;
};

}  // namespace comba::generation
