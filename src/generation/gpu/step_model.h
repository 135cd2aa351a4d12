#pragma once

#include <ATen/ATen.h>

#include <string>
#include <vector>

#include "models/causal_lm.h"
#include "operators/model_step/model_step.h"

namespace comba::generation {

/// Why a model cannot be stepped by operators/model_step; empty when it can. It says what the model has that stands
/// against it, such as attention or weights in fp32.
std::string step_refusal(models::CausalLM& model);

/// weight [rows, columns] in the order of model_step::PackedMatrix.
at::Tensor packed(const at::Tensor& weight);

/// A state [.., K, V] in the order of model_step::Layer::state [.., V / 16, K, 16], and back.
at::Tensor state_slices(const at::Tensor& state);
at::Tensor state_of_slices(const at::Tensor& slices);

/// A model as operators/model_step takes it, with the memory of its steps: a packed copy of its matrices, slots for
/// states, scratch.
struct StepModel {
  using Parameters = torch::OrderedDict<std::string, at::Tensor>;

  /// `drawn_vocab`: only ids below it are drawn. Throws Error(unsupported) with the reason of step_refusal().
  StepModel(models::CausalLM& model, std::int64_t num_slots, std::int64_t drawn_vocab, at::ScalarType state_dtype);

  models::ModelState read_state(std::int64_t slot) const;  ///< of one stream; its position is not known here
  void write_state(std::int64_t slot, const models::ModelState& state);

  model_step::Model step;
  std::vector<at::Tensor> states;  ///< of each layer  [S, HV, V / 16, K, 16]
  std::vector<at::Tensor> tails;   ///< of each layer  [S, W - 1, C]; none without convolutions
  at::Tensor slots;                ///< [R] i32
  at::Tensor tokens;               ///< [S] i32
  at::Tensor sampling;             ///< [S, bytes of model_step::Sampling]
  at::Tensor recent;               ///< [S, max_window] i32
  at::Tensor drawn;                ///< [2, R] i32, of the host
  at::Tensor logits;               ///< [R, padded vocab] f32

 private:
  bf16* keep_bf16(const at::Tensor& tensor);
  const float* keep_floats(const at::Tensor& tensor);
  model_step::PackedMatrix keep_packed(const at::Tensor& weight);
  void add_layer(const Parameters& parameters, std::int64_t number);
  void add_memory(std::int64_t drawn_vocab);

  at::TensorOptions options_;  // of the weights
  at::ScalarType state_dtype_;
  std::vector<at::Tensor> kept_;
};

}  // namespace comba::generation
