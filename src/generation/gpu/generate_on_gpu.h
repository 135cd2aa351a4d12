#pragma once

#include <span>
#include <string>
#include <vector>

#include "generation/generate.h"

namespace comba::generation {

/// Why generate() cannot step this model with these options as one CUDA graph, and goes kernel by kernel instead; empty
/// when it can.
std::string gpu_refusal(models::CausalLM& model, const GenerateOptions& options);

/// generate() by StepDecoder, for checked arguments that gpu_refusal() does not refuse. The first token of a text is
/// drawn on the host. Unless states are wanted, the host learns of a token when the GPU is already at the next one, so
/// that a text that ends has read its last token, and perhaps one more, in vain.
std::vector<Continuation> generate_on_gpu(models::CausalLM& model, std::span<const Prompt> prompts,
                                          const GenerateOptions& options, const GenerateEvents& events);

}  // namespace comba::generation
