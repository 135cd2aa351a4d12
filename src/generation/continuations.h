#pragma once

#include <optional>
#include <span>
#include <vector>

#include "generation/generate.h"
#include "generation/read_prompt.h"
#include "generation/stopwatch.h"

namespace comba::generation {

/// The texts of one call of generate() as they come about: when one ends, what is told of it, how long it took.
/// Wherever the tokens are drawn. `text` is the place of a prompt among the prompts.
class Continuations {
 public:
  /// Refers to all of these.
  Continuations(models::CausalLM& model, std::span<const Prompt> prompts, const GenerateOptions& options,
                const GenerateEvents& events);

  /// Reads the prompt of a text, which from then on is being generated.
  ReadPrompt read(std::size_t text, TokenSampler& sampler);

  /// Whether a text has all the tokens that are wanted, so that none need be drawn.
  bool is_complete(std::size_t text) const;
  /// Adds a drawn token to its text, or says why it ends before that, or with that.
  std::optional<Finish> accept(std::size_t text, std::int64_t token);
  /// Ends a text: nothing of it changes afterwards.
  void end(std::size_t text, Finish finish);

  std::size_t size() const { return results_.size(); }
  Continuation& operator[](std::size_t text) { return results_[text]; }
  std::vector<Continuation> take() { return std::move(results_); }

  /// The logits of ids that may be drawn.
  std::span<const float> drawable(std::span<const float> logits) const;
  std::int64_t vocab() const;

 private:
  models::CausalLM& model_;
  std::span<const Prompt> prompts_;
  const GenerateOptions& options_;
  const GenerateEvents& events_;
  std::vector<Continuation> results_;
  std::vector<Clock::time_point> starts_;  // of their generation
};

}  // namespace comba::generation
