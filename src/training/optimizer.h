#pragma once

#include <torch/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "distributed/process_group.h"
#include "models/safetensors.h"

namespace comba::training {

/// A trained tensor, or a slice of one, and its name in the checkpoint.
struct NamedParameter {
  std::string name;
  at::Tensor tensor;
  /// Decayed are matrices (linear maps, embeddings, convolution filters), not vectors (norm weights, biases, A_log,
  /// dt_bias, D, decay; RWKV7's, which are [1, 1, D]).
  bool weight_decay = tensor.dim() == 2 || (tensor.dim() > 2 && tensor.size(0) > 1);
};

struct AdamWOptions {
  double beta1 = 0.9;
  double beta2 = 0.95;
  double epsilon = 1e-8;
  double weight_decay = 0.01;
};

/// AdamW (Loshchilov and Hutter 2019), with LibTorch's fused kernels. With step number t from 1, gradient g, rate lr:
///
///     w <- w (1 - lr weight_decay)
///     m <- beta1 m + (1 - beta1) g;   v <- beta2 v + (1 - beta2) g^2
///     w <- w - lr (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + epsilon)
class AdamW {
 public:
  /// How the names of its state begin, a parameter's name following.
  static constexpr const char* kMoments[] = {"exp_avg.", "exp_avg_sq."};
  static constexpr const char* kNumSteps = "num_steps";

  AdamW(std::vector<NamedParameter> parameters, const AdamWOptions& options);

  /// Updates every parameter that has a gradient.
  void step(double learning_rate);

  /// Steps made so far.
  std::int64_t num_steps() const { return num_steps_; }

  /// The moments, as "exp_avg.NAME" and "exp_avg_sq.NAME", and "num_steps" (int64, one element): all that a later
  /// `load_state` needs. The tensors are the live ones, not copies.
  models::NamedTensors state() const;

  /// Throws Error(io) when a tensor is missing, unknown, or of another shape or dtype; then nothing is changed.
  void load_state(const models::NamedTensors& state);

 private:
  struct Moments {
    at::Tensor exp_avg;
    at::Tensor exp_avg_sq;
  };

  void update(bool with_weight_decay, double learning_rate);

  std::vector<NamedParameter> parameters_;
  std::vector<Moments> moments_;  // one for each parameter
  AdamWOptions options_;
  std::int64_t num_steps_ = 0;
};

/// Scales the gradients so that their global L2 norm, over the parameters of all processes of `group`, is at most
/// `max_norm`, and returns the norm they had. Gradients whose norm is not finite are left as they are.
double clip_gradient_norm(const std::vector<NamedParameter>& parameters, double max_norm,
                          distributed::ProcessGroup& group = distributed::single_process());

}  // namespace comba::training
