#include "models/read_tokens.h"

#include <algorithm>

#include "base/message.h"

namespace comba::models {

at::Tensor read_tokens(CausalLM& model, std::span<const std::int64_t> ids, ModelState& state, std::int64_t chunk_length,
                       const std::function<void(std::int64_t tokens)>& on_chunk) {
  require(!ids.empty(), ErrorCode::invalid_argument, "[read_tokens] the text must have at least one token; got none");
  require(chunk_length > 0, ErrorCode::invalid_argument, "[read_tokens] chunk_length must be at least 1; got ",
          chunk_length);
  const at::NoGradGuard no_grad;
  const auto num_tokens = static_cast<std::int64_t>(ids.size());
  at::Tensor logits;
  for (std::int64_t first = 0; first < num_tokens; first += chunk_length) {
    const std::int64_t count = std::min(chunk_length, num_tokens - first);
    const at::Tensor chunk = at::tensor(c10::ArrayRef<std::int64_t>(ids.data() + first, count), at::kLong);
    logits = model.next_logits(chunk.unsqueeze(0), state);
    if (on_chunk) on_chunk(first + count);
  }
  return logits.squeeze(0).to(at::kCPU, at::kFloat);
}

}  // namespace comba::models
