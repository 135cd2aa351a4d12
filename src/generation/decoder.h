#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "models/causal_lm.h"

namespace comba::generation {

/// Texts that a model continues side by side, by one token each a step: the rows 0 .. num_rows() - 1.
/// The state of a recurrent layer has one size at any length of text, so that the rows are one batch. What attention
/// remembers grows, and some recurrent layers know their positions: a model that has such layers reads each row by
/// itself.
class Decoder {
 public:
  explicit Decoder(models::CausalLM& model) : model_(model), is_one_batch_(!model.knows_positions()) {}

  std::int64_t num_rows() const { return static_cast<std::int64_t>(positions_.size()); }

  /// Adds a text as the last row: the state of one stream, which it takes over, and its next_logits [vocab].
  void add(const models::ModelState& state, const at::Tensor& next_logits);

  /// Logits of a row's next token.  [vocab]  Valid until the next step(), add() or remove().
  std::span<const float> next_logits(std::int64_t row) const;

  /// Reads one token in each row.
  void step(std::span<const std::int64_t> tokens);

  /// A row's state, which shares nothing with the decoder.
  models::ModelState state(std::int64_t row) const;

  /// Forgets a row; those after it move up.
  void remove(std::int64_t row);

 private:
  models::CausalLM& model_;
  bool is_one_batch_;
  std::vector<models::ModelState> states_;  // one of B rows, or one a row
  std::vector<std::int64_t> positions_;     // [B]
  at::Tensor next_logits_;                  // [B, vocab] f32
};

}  // namespace comba::generation
