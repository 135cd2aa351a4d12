#include "generation/continuations.h"

namespace comba::generation {

Continuations::Continuations(models::CausalLM& model, std::span<const Prompt> prompts, const GenerateOptions& options,
                             const GenerateEvents& events)
    : model_(model),
      prompts_(prompts),
      options_(options),
      events_(events),
      results_(prompts.size()),
      starts_(prompts.size()) {}

ReadPrompt Continuations::read(std::size_t text, TokenSampler& sampler) {
  const Clock::time_point start = Clock::now();
  ReadPrompt read = read_prompt(model_, prompts_[text], options_.chunk_length, sampler, [&](std::int64_t tokens) {
    if (events_.on_read) events_.on_read(text, tokens);
  });
  starts_[text] = Clock::now();
  results_[text].seconds_reading = seconds_since(start);
  return read;
}

bool Continuations::is_complete(std::size_t text) const {
  return static_cast<std::int64_t>(results_[text].tokens.size()) >= options_.max_tokens;
}

std::optional<Finish> Continuations::accept(std::size_t text, std::int64_t token) {
  if (is_complete(text)) return Finish::length;
  if (token == options_.stop_token) return Finish::stop_token;
  results_[text].tokens.push_back(token);
  if (events_.on_token && !events_.on_token(text, token)) return Finish::callback;
  if (is_complete(text) && !options_.keep_states) return Finish::length;  // nobody reads on
  return std::nullopt;
}

void Continuations::end(std::size_t text, Finish finish) {
  Continuation& result = results_[text];
  result.finish = finish;
  result.seconds_generating = seconds_since(starts_[text]);
  if (events_.on_end) events_.on_end(text, result);
}

std::int64_t Continuations::vocab() const { return options_.vocab > 0 ? options_.vocab : model_.config().vocab_size; }

std::span<const float> Continuations::drawable(std::span<const float> logits) const {
  return logits.first(static_cast<std::size_t>(vocab()));
}

}  // namespace comba::generation
