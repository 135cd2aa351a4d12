#pragma once

#include <filesystem>
#include <string>

#include "generation/text_state.h"

/// A text state as a safetensors file: layers.0.0, layers.0.1, .. are the tensors of each layer's state, next_logits
/// and recent_tokens those of the text; the metadata names the model, by its configuration and a sample of its weights,
/// and the tokenizer.
namespace comba::generation {

/// Writes `state`, made with `model` and the tokenizer that `tokenizer_json` describes. The file appears whole or not
/// at all. Throws Error(io) when it cannot be written.
void save_state(const TextState& state, models::CausalLM& model, const std::string& tokenizer_json,
                const std::filesystem::path& path);

/// Reads what save_state() wrote. Throws Error: io for a file that cannot be read, is damaged or is no state;
/// invalid_argument for the state of another model or tokenizer, saying what differs.
TextState load_state(models::CausalLM& model, const std::string& tokenizer_json, const std::filesystem::path& path);

}  // namespace comba::generation
