#include "training/optimizer.h"

#include <ATen/ops/_fused_adamw.h>

#include <utility>

namespace comba::training {

AdamW::AdamW(std::vector<FlatPiece> pieces, const AdamWOptions& options)
    : pieces_(std::move(pieces)), options_(options) {
  std::int64_t size = 0;
  for (const FlatPiece& piece : pieces_) size += piece.value.numel();
  const at::TensorOptions f32 = pieces_.empty() ? at::TensorOptions(at::kFloat) : pieces_[0].value.options();
  exp_avg_ = at::zeros({size}, f32);
  exp_avg_sq_ = at::zeros({size}, f32);
  num_steps_ = at::zeros({}, f32);
}

void AdamW::step(const at::Tensor& learning_rate, const at::Tensor& gradient_divisor, const at::Tensor& skip) {
  const at::NoGradGuard no_grad;
  num_steps_.add_(1).sub_(skip);
  update(/*with_weight_decay=*/true, learning_rate, gradient_divisor, skip);
  update(/*with_weight_decay=*/false, learning_rate, gradient_divisor, skip);
}

void AdamW::update(bool with_weight_decay, const at::Tensor& learning_rate, const at::Tensor& gradient_divisor,
                   const at::Tensor& skip) {
  std::vector<at::Tensor> weights, gradients, exp_avgs, exp_avg_sqs;
  std::int64_t offset = 0;
  for (const FlatPiece& piece : pieces_) {
    const std::int64_t size = piece.value.numel();
    if (piece.weight_decay == with_weight_decay) {
      weights.push_back(piece.value);
      gradients.push_back(piece.gradient);
      exp_avgs.push_back(exp_avg_.narrow(0, offset, size));
      exp_avg_sqs.push_back(exp_avg_sq_.narrow(0, offset, size));
    }
    offset += size;
  }
  if (weights.empty()) return;
  // LibTorch reads the step number from a tensor beside each weight; here one tensor serves all of them.
  const std::vector<at::Tensor> steps(weights.size(), num_steps_);
  at::_fused_adamw_(weights, gradients, exp_avgs, exp_avg_sqs, /*max_exp_avg_sqs=*/{}, steps, learning_rate,
                    options_.beta1, options_.beta2, with_weight_decay ? options_.weight_decay : 0.0, options_.epsilon,
                    /*amsgrad=*/false, /*maximize=*/false, gradient_divisor, skip);
}

}  // namespace comba::training
