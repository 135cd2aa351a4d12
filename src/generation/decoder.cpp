#include "generation/decoder.h"

#include <numeric>

namespace comba::generation {
namespace {

using models::ModelState;

/// `state` with each tensor changed.
template <class Change>
ModelState transformed(const ModelState& state, const Change& change) {
  ModelState result = state;
  for (std::size_t layer = 0; layer < state.layers.size(); ++layer) {
    for (std::size_t i = 0; i < state.layers[layer].tensors.size(); ++i) {
      result.layers[layer].tensors[i] = change(layer, i, state.layers[layer].tensors[i]);
    }
  }
  return result;
}

ModelState stacked(const ModelState& above, const ModelState& below) {
  return transformed(above, [&](std::size_t layer, std::size_t i, const at::Tensor& tensor) {
    return at::cat({tensor, below.layers[layer].tensors[i]});
  });
}

ModelState rows_of(const ModelState& state, const at::Tensor& rows) {
  return transformed(state, [&](std::size_t, std::size_t, const at::Tensor& tensor) {
    return tensor.index_select(0, rows.to(tensor.device()));
  });
}

/// All of 0 .. count - 1 but `row`.
at::Tensor all_but(std::int64_t row, std::int64_t count) {
  std::vector<std::int64_t> rows(static_cast<std::size_t>(count));
  std::iota(rows.begin(), rows.end(), 0);
  rows.erase(rows.begin() + row);
  return at::tensor(rows, at::kLong);
}

}  // namespace

void Decoder::add(const ModelState& state, const at::Tensor& next_logits) {
  const at::Tensor row = next_logits.unsqueeze(0);
  next_logits_ = positions_.empty() ? row.contiguous() : at::cat({next_logits_, row});
  if (is_one_batch_ && !states_.empty()) {
    states_[0] = stacked(states_[0], state);
  } else {
    states_.push_back(state);
  }
  positions_.push_back(state.position);
}

std::span<const float> Decoder::next_logits(std::int64_t row) const {
  const std::int64_t vocab = next_logits_.size(1);
  return {next_logits_.const_data_ptr<float>() + row * vocab, static_cast<std::size_t>(vocab)};
}

void Decoder::step(std::span<const std::int64_t> tokens) {
  const at::NoGradGuard no_grad;
  const at::Tensor ids = at::tensor(c10::ArrayRef<std::int64_t>(tokens.data(), tokens.size()), at::kLong).unsqueeze(1);
  if (is_one_batch_) {
    next_logits_ = model_.next_logits(ids, states_[0]).to(at::kCPU, at::kFloat).contiguous();
  } else {
    std::vector<at::Tensor> rows;
    for (std::size_t row = 0; row < states_.size(); ++row) {
      rows.push_back(model_.next_logits(ids.narrow(0, static_cast<std::int64_t>(row), 1), states_[row]));
    }
    next_logits_ = at::cat(rows).to(at::kCPU, at::kFloat);
  }
  for (std::int64_t& position : positions_) ++position;
}

ModelState Decoder::state(std::int64_t row) const {
  ModelState state = is_one_batch_ ? rows_of(states_[0], at::tensor({row}, at::kLong)) : states_[row].clone();
  state.position = positions_[row];
  return state;
}

void Decoder::remove(std::int64_t row) {
  const at::Tensor others = all_but(row, num_rows());
  next_logits_ = next_logits_.index_select(0, others);
  positions_.erase(positions_.begin() + row);
  if (!is_one_batch_ || positions_.empty()) {
    states_.erase(states_.begin() + (is_one_batch_ ? 0 : row));
  } else {
    states_[0] = rows_of(states_[0], others);
  }
}

}  // namespace comba::generation
