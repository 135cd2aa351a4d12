#pragma once

#include <cstdint>
#include <vector>

#include "models/causal_lm.h"

namespace comba::generation {

/// A text that has been read, from which it can be continued without being read again.
struct TextState {
  models::ModelState model;                 ///< of one stream, after the last token
  at::Tensor next_logits;                   ///< [vocab] f32  of the token after it
  std::vector<std::int64_t> recent_tokens;  ///< its last ones, oldest first: what a repetition penalty looks back on

  /// Size of all tensors. It does not depend on the length of the text, unless the model has softmax attention without
  /// a window.
  std::int64_t num_bytes() const;
};

}  // namespace comba::generation
