#include "generation/gpu/generate_on_gpu.h"

#include <algorithm>

#include "base/message.h"
#include "generation/gpu/step_decoder.h"
#include "generation/read_prompt.h"
#include "generation/stopwatch.h"
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
        events_(events),
        vocab_(options.vocab > 0 ? options.vocab : model.config().vocab_size),
        decoder_(model, std::min<std::int64_t>(options.batch_size, static_cast<std::int64_t>(prompts.size())), vocab_),
        results_(prompts.size()) {}

  std::vector<Continuation> complete() {
    const std::size_t ahead = options_.keep_states ? 0 : 1;  // a state must not have read what is not in the text
    std::size_t next = 0;
    while (next < prompts_.size() || !texts_.empty()) {
      while (next < prompts_.size() && !decoder_.is_full()) start(next++);
      if (texts_.empty()) continue;
      decoder_.launch();
      if (decoder_.num_unread() > ahead) take_tokens();
    }
    return std::move(results_);
  }

 private:
  struct Text {
    std::size_t index;  ///< of its prompt
    SlotTable::Row row;
    TokenSampler sampler;  ///< for the first token, and to know the recent ones
    Clock::time_point start;
  };

  void start(std::size_t index) {
    const Clock::time_point start = Clock::now();
    Text text{.index = index, .row = {}, .sampler = TokenSampler(options_.sampling), .start = {}};
    ReadPrompt read =
        read_prompt(model_, prompts_[index], options_.chunk_length, text.sampler, [&](std::int64_t tokens) {
          if (events_.on_read) events_.on_read(index, tokens);
        });
    text.start = Clock::now();
    results_[index].seconds_reading = seconds_since(start);
    const auto logits = logits_of(read.next_logits);
    std::optional<Finish> finish;
    if (options_.max_tokens == 0) finish = Finish::length;
    const std::vector<std::int64_t> before = text.sampler.recent();
    if (!finish) finish = accept(text, text.sampler.sample(logits));
    if (finish) {
      if (finish == Finish::stop_token) text.sampler = observer_of(before);
      if (options_.keep_states) keep_state(text, std::move(read.state), read.next_logits, *finish);
      return end(text, *finish);
    }
    text.row = decoder_.join(read.state, results_[index].tokens.back(), options_.sampling, /*num_drawn=*/1,
                             text.sampler.recent());
    texts_.push_back(std::move(text));
  }

  std::span<const float> logits_of(const at::Tensor& logits) const {
    return {logits.const_data_ptr<float>(), static_cast<std::size_t>(vocab_)};
  }
  TokenSampler observer_of(const std::vector<std::int64_t>& recent) const {
    TokenSampler sampler(options_.sampling);
    sampler.observe(recent);
    return sampler;
  }

  /// Adds a drawn token to its text, or says why it ends before that, or with that.
  std::optional<Finish> accept(Text& text, std::int64_t token) {
    Continuation& result = results_[text.index];
    const auto num_tokens = [&] { return static_cast<std::int64_t>(result.tokens.size()); };
    if (num_tokens() >= options_.max_tokens) return Finish::length;
    if (token == options_.stop_token) return Finish::stop_token;
    result.tokens.push_back(token);
    if (events_.on_token && !events_.on_token(text.index, token)) return Finish::callback;
    if (num_tokens() == options_.max_tokens && !options_.keep_states) return Finish::length;  // nobody reads on
    return std::nullopt;
  }

  void take_tokens() {
    for (const StepDecoder::Drawn& drawn : decoder_.read()) {
      const auto found = std::ranges::find(texts_, drawn.text, &Text::row);
      const std::size_t before = results_[found->index].tokens.size();
      const std::optional<Finish> finish = accept(*found, drawn.token);
      if (results_[found->index].tokens.size() > before) found->sampler.observe({&drawn.token, 1});
      if (!finish) continue;
      Text text = std::move(*found);
      texts_.erase(found);
      if (options_.keep_states) {
        keep_state(text, decoder_.state(text.row), decoder_.next_logits(text.row), *finish);
      }
      decoder_.leave(text.row);
      end(text, *finish);
    }
  }

  /// `state` and `next_logits` are those before the last token was drawn.
  void keep_state(const Text& text, models::ModelState state, at::Tensor next_logits, Finish finish) {
    Continuation& result = results_[text.index];
    const Prompt& prompt = prompts_[text.index];
    state.position = (prompt.after ? prompt.after->model.position : 0) +
                     static_cast<std::int64_t>(prompt.tokens.size() + result.tokens.size());
    if (finish == Finish::callback) {  // its last token has been drawn and not read
      --state.position;
      const std::int64_t last = result.tokens.back();
      next_logits = models::read_tokens(model_, {&last, 1}, state, /*chunk_length=*/1);
    }
    result.state =
        TextState{.model = std::move(state), .next_logits = next_logits, .recent_tokens = text.sampler.recent()};
  }

  void end(const Text& text, Finish finish) {
    Continuation& result = results_[text.index];
    result.finish = finish;
    result.seconds_generating = seconds_since(text.start);
    if (events_.on_end) events_.on_end(text.index, result);
  }

  models::CausalLM& model_;
  std::span<const Prompt> prompts_;
  const GenerateOptions& options_;
  const GenerateEvents& events_;
  std::int64_t vocab_;
  StepDecoder decoder_;
  std::vector<Text> texts_;
  std::vector<Continuation> results_;
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
