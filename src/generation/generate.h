#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "generation/text_state.h"
#include "generation/token_sampler.h"
#include "models/causal_lm.h"

namespace comba::generation {

struct GenerateOptions {
  std::int64_t max_tokens = 256;                ///< tokens to generate, at most
  std::int64_t vocab = 0;                       ///< only ids below it are drawn; 0: all rows of the model
  std::optional<std::int64_t> stop_token = {};  ///< ends the text, and is not part of it
  SamplingOptions sampling = {};                ///< each text has a sampler of its own, all with the same seed
  std::int64_t chunk_length = 1024;             ///< tokens of a prompt that are read at once: bounds memory
  std::int64_t batch_size = 8;                  ///< texts that are continued side by side, at most
  bool keep_states = false;                     ///< whether Continuation::state is wanted
};

/// What is to be continued.
struct Prompt {
  std::vector<std::int64_t> tokens;  ///< to be read first; may be empty after a text
  const TextState* after = nullptr;  ///< the text that the tokens follow, which is not changed; null: none
};

/// Why a text ended.
enum class Finish {
  length,      ///< max_tokens are there
  stop_token,  ///< the model ended it
  callback,    ///< on_token said so
};

struct Continuation {
  std::vector<std::int64_t> tokens;  ///< generated ones
  Finish finish = Finish::length;
  double seconds_reading = 0;           ///< of the prompt
  double seconds_generating = 0;        ///< from then on; texts of one batch share this time
  std::optional<TextState> state = {};  ///< after the last of `tokens`, if wanted
};

/// What happens on the way. `text` is the place of a prompt among the prompts. What a function throws ends everything.
struct GenerateEvents {
  /// A chunk was read: `tokens` of the prompt so far.
  std::function<void(std::size_t text, std::int64_t tokens)> on_read = nullptr;
  /// A token is known; false ends its text.
  std::function<bool(std::size_t text, std::int64_t token)> on_token = nullptr;
  /// A text is complete. Short texts may overtake long ones of the same batch.
  std::function<void(std::size_t text, const Continuation& continuation)> on_end = nullptr;
};

/// Continues each prompt: reads it in chunks, then generates token by token with the state carried along, in memory and
/// time a token that do not grow with the length (unless the model has attention without a window). A text that ends
/// makes room for the next prompt. The texts do not see each other: each is what it would be alone, but for the
/// rounding of products with another number of rows. Throws Error(invalid_argument) for an empty prompt that follows no
/// text, or ids or options out of range.
std::vector<Continuation> generate(models::CausalLM& model, std::span<const Prompt> prompts,
                                   const GenerateOptions& options, const GenerateEvents& events = {});

}  // namespace comba::generation
