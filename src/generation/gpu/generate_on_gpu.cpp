#include "generation/gpu/generate_on_gpu.h"

#include <algorithm>

#include "base/message.h"
#include "generation/continuations.h"
#include "generation/gpu/step_decoder.h"
#include "models/read_tokens.h"

namespace comba::generation {
namespace {

/// One call of generate_on_gpu().
class GpuRun {
 public:
  GpuRun(models::CausalLM& model, std::span<const Prompt> prompts, const GenerateOptions& options,
         const GenerateEvents& events)
      : model_(model),
        prompts_(prompts),
        options_(options),
        texts_(model, prompts, options, events),
        decoder_(model, std::min<std::int64_t>(options.batch_size, static_cast<std::int64_t>(prompts.size())),
                 texts_.vocab()) {}

  std::vector<Continuation> complete() {
    const std::size_t ahead = options_.keep_states ? 0 : 1;  // a state must not have read what is not in the text
    std::size_t next = 0;
    while (next < texts_.size() || !rows_.empty()) {
      while (next < texts_.size() && !decoder_.is_full()) start(next++);
      if (rows_.empty()) continue;
      decoder_.launch();
      if (decoder_.num_unread() > ahead) take_tokens();
    }
    return texts_.take();
  }

 private:
  struct Row {
    std::size_t text;
    SlotTable::Row place;
    TokenSampler sampler;  ///< for the first token, and to know the recent ones
  };

  void start(std::size_t text) {
    Row row{.text = text, .place = {}, .sampler = TokenSampler(options_.sampling)};
    ReadPrompt read = texts_.read(text, row.sampler);
    const std::vector<std::int64_t> before = row.sampler.recent();
    if (const auto finish = draw_first(row, read.next_logits)) {
      if (finish == Finish::stop_token) row.sampler = observer_of(before);
      if (options_.keep_states) keep_state(row, std::move(read.state), read.next_logits, *finish);
      return texts_.end(text, *finish);
    }
    row.place =
        decoder_.join(read.state, texts_[text].tokens.back(), options_.sampling, /*num_drawn=*/1, row.sampler.recent());
    rows_.push_back(std::move(row));
  }

  std::optional<Finish> draw_first(Row& row, const at::Tensor& logits) {
    if (texts_.is_complete(row.text)) return Finish::length;
    const std::span all(logits.const_data_ptr<float>(), static_cast<std::size_t>(logits.numel()));
    return texts_.accept(row.text, row.sampler.sample(texts_.drawable(all)));
  }
  TokenSampler observer_of(const std::vector<std::int64_t>& recent) const {
    TokenSampler sampler(options_.sampling);
    sampler.observe(recent);
    return sampler;
  }

  void take_tokens() {
    for (const StepDecoder::Drawn& drawn : decoder_.read()) {
      const auto found = std::ranges::find(rows_, drawn.text, &Row::place);
      const std::size_t before = texts_[found->text].tokens.size();
      const std::optional<Finish> finish = texts_.accept(found->text, drawn.token);
      if (texts_[found->text].tokens.size() > before) found->sampler.observe({&drawn.token, 1});
      if (!finish) continue;
      const Row row = std::move(*found);
      rows_.erase(found);
      if (options_.keep_states) {
        keep_state(row, decoder_.state(row.place), decoder_.next_logits(row.place), *finish);
      }
      decoder_.leave(row.place);
      texts_.end(row.text, *finish);
    }
  }

  /// `state` and `next_logits` are those before the last token was drawn.
  void keep_state(const Row& row, models::ModelState state, at::Tensor next_logits, Finish finish) {
    Continuation& result = texts_[row.text];
    const Prompt& prompt = prompts_[row.text];
    state.position = (prompt.after ? prompt.after->model.position : 0) +
                     static_cast<std::int64_t>(prompt.tokens.size() + result.tokens.size());
    if (finish == Finish::callback) {  // its last token has been drawn and not read
      --state.position;
      const std::int64_t last = result.tokens.back();
      next_logits = models::read_tokens(model_, {&last, 1}, state, /*chunk_length=*/1);
    }
    result.state =
        TextState{.model = std::move(state), .next_logits = next_logits, .recent_tokens = row.sampler.recent()};
  }

  models::CausalLM& model_;
  std::span<const Prompt> prompts_;
  const GenerateOptions& options_;
  Continuations texts_;
  StepDecoder decoder_;
  std::vector<Row> rows_;  // of the decoder
};

}  // namespace

std::string gpu_refusal(models::CausalLM& model, const GenerateOptions& options) {
  const SamplingOptions& sampling = options.sampling;
  if (sampling.repetition_penalty != 1 && sampling.repetition_window > model_step::kMostRecent) {
    return concat("repetition_window must be at most ", model_step::kMostRecent, "; got ", sampling.repetition_window);
  }
  return step_refusal(model);
}

std::vector<Continuation> generate_on_gpu(models::CausalLM& model, std::span<const Prompt> prompts,
                                          const GenerateOptions& options, const GenerateEvents& events) {
  if (prompts.empty()) return {};
  return GpuRun(model, prompts, options, events).complete();
}

}  // namespace comba::generation
