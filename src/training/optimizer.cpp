#include "training/optimizer.h"

#include <ATen/ops/_foreach_mul.h>
#include <ATen/ops/_foreach_norm.h>
#include <ATen/ops/_fused_adamw.h>

#include <cmath>
#include <utility>

#include "base/message.h"

namespace comba::training {
namespace {

void require_like(const at::Tensor& live, const models::NamedTensors& state, const std::string& name) {
  const auto found = state.find(name);
  require(found != state.end(), ErrorCode::io, "[AdamW] the optimizer state must have ", name, "; got none");
  const at::Tensor& saved = found->second;
  require(saved.sizes() == live.sizes() && saved.scalar_type() == live.scalar_type(), ErrorCode::io,
          "[AdamW] the optimizer state's ", name, " must be ", live.sizes(), ' ', live.scalar_type(), "; got ",
          saved.sizes(), ' ', saved.scalar_type());
}

double local_norm(const std::vector<at::Tensor>& gradients) {
  if (gradients.empty()) return 0.0;
  return at::stack(at::_foreach_norm(gradients)).to(at::kDouble).norm().item<double>();
}

double global_norm(double local, distributed::ProcessGroup& group) {
  if (group.size() == 1) return local;
  at::Tensor squares = at::full({1}, local * local, at::kDouble);
  group.all_reduce_sum(squares);
  return std::sqrt(squares.item<double>());
}

}  // namespace

AdamW::AdamW(std::vector<NamedParameter> parameters, const AdamWOptions& options)
    : parameters_(std::move(parameters)), options_(options) {
  for (const NamedParameter& parameter : parameters_) {
    moments_.push_back({at::zeros_like(parameter.tensor), at::zeros_like(parameter.tensor)});
  }
}

void AdamW::step(double learning_rate) {
  ++num_steps_;
  update(/*with_weight_decay=*/true, learning_rate);
  update(/*with_weight_decay=*/false, learning_rate);
}

void AdamW::update(bool with_weight_decay, double learning_rate) {
  const at::NoGradGuard no_grad;
  std::vector<at::Tensor> weights, gradients, exp_avgs, exp_avg_sqs;
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    const at::Tensor& weight = parameters_[i].tensor;
    if (parameters_[i].weight_decay != with_weight_decay || !weight.grad().defined()) continue;
    weights.push_back(weight);
    gradients.push_back(weight.grad());
    exp_avgs.push_back(moments_[i].exp_avg);
    exp_avg_sqs.push_back(moments_[i].exp_avg_sq);
  }
  if (weights.empty()) return;
  // The kernel reads the step number from a tensor beside each weight; here one tensor serves all of them.
  const std::vector<at::Tensor> steps(weights.size(), at::full({}, num_steps_, weights[0].options()));
  at::_fused_adamw_(weights, gradients, exp_avgs, exp_avg_sqs, /*max_exp_avg_sqs=*/{}, steps, learning_rate,
                    options_.beta1, options_.beta2, with_weight_decay ? options_.weight_decay : 0.0, options_.epsilon,
                    /*amsgrad=*/false, /*maximize=*/false);
}

models::NamedTensors AdamW::state() const {
  models::NamedTensors state;
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    state[kMoments[0] + parameters_[i].name] = moments_[i].exp_avg;
    state[kMoments[1] + parameters_[i].name] = moments_[i].exp_avg_sq;
  }
  state[kNumSteps] = at::full({1}, num_steps_, at::kLong);
  return state;
}

void AdamW::load_state(const models::NamedTensors& saved) {
  const models::NamedTensors live = this->state();
  for (const auto& [name, tensor] : live) require_like(tensor, saved, name);
  for (const auto& [name, tensor] : saved) {
    require(live.contains(name), ErrorCode::io, "[AdamW] the optimizer state has a tensor of no parameter: ", name);
  }
  for (const auto& [name, tensor] : live) at::Tensor(tensor).copy_(saved.at(name));
  num_steps_ = saved.at(kNumSteps).item<std::int64_t>();
}

double clip_gradient_norm(const std::vector<NamedParameter>& parameters, double max_norm,
                          distributed::ProcessGroup& group) {
  const at::NoGradGuard no_grad;
  std::vector<at::Tensor> gradients;
  for (const NamedParameter& parameter : parameters) {
    if (parameter.tensor.grad().defined()) gradients.push_back(parameter.tensor.grad());
  }
  const double norm = global_norm(local_norm(gradients), group);
  if (std::isfinite(norm) && norm > max_norm && !gradients.empty()) at::_foreach_mul_(gradients, max_norm / norm);
  return norm;
}

}  // namespace comba::training
