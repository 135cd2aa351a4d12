#pragma once

#include <torch/types.h>

#include <cstdint>
#include <vector>

namespace comba::training {

/// Weights side by side in memory that are updated alike.
struct FlatPiece {
  at::Tensor value;     ///< [n] f32
  at::Tensor gradient;  ///< [n] f32
  bool weight_decay = true;
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
///
/// Everything that changes from step to step is a tensor beside the weights, so that a GPU need not wait for the host
/// and a graph can repeat a step.
class AdamW {
 public:
  AdamW(std::vector<FlatPiece> pieces, const AdamWOptions& options);

  /// Updates every weight. learning_rate [] f32 on a GPU, f64 on the CPU; the gradients are divided by
  /// gradient_divisor [] f32, in place; where skip [] f32 is 1, nothing is done.
  void step(const at::Tensor& learning_rate, const at::Tensor& gradient_divisor, const at::Tensor& skip);

  /// Steps made so far, as the next step reads it.  [] f32
  const at::Tensor& num_steps() const { return num_steps_; }
  /// First and second moment of every weight, one piece after the other.  [n] f32
  const at::Tensor& exp_avg() const { return exp_avg_; }
  const at::Tensor& exp_avg_sq() const { return exp_avg_sq_; }

 private:
  void update(bool with_weight_decay, const at::Tensor& learning_rate, const at::Tensor& gradient_divisor,
              const at::Tensor& skip);

  std::vector<FlatPiece> pieces_;
  AdamWOptions options_;
  at::Tensor exp_avg_, exp_avg_sq_, num_steps_;
};

}  // namespace comba::training
