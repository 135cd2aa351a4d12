#include "training/sharded_parameters.h"

#include <optional>
#include <utility>

#include "base/message.h"

namespace comba::training {
namespace {

std::vector<std::int64_t> sizes_of(const std::vector<NamedParameter>& parameters) {
  std::vector<std::int64_t> sizes;
  for (const NamedParameter& parameter : parameters) sizes.push_back(parameter.tensor.numel());
  return sizes;
}

at::Tensor flat_slice(const at::Tensor& tensor, const ShardSlice& slice) {
  return tensor.detach().view({-1}).narrow(0, slice.first, slice.size);
}

at::Tensor narrow(const at::Tensor& shard, const ShardSlice& slice) {
  return shard.narrow(0, slice.offset, slice.size);
}

}  // namespace

ShardedParameters::ShardedParameters(std::vector<NamedParameter> parameters, distributed::ProcessGroup& group)
    : parameters_(std::move(parameters)), group_(group), layout_(sizes_of(parameters_), group.size()) {
  if (group_.size() == 1) {
    own_ = parameters_;
    return;
  }
  slices_ = layout_.slices(group_.rank());
  for (const ShardSlice& slice : slices_) {
    const NamedParameter& whole = parameters_[slice.tensor];
    own_.push_back({whole.name, flat_slice(whole.tensor, slice), whole.weight_decay});
  }
  const at::TensorOptions options = parameters_.front().tensor.options();
  all_ = at::zeros({group_.size() * layout_.shard_size()}, options);
  gradients_ = at::zeros({layout_.shard_size()}, options);
  values_ = at::zeros({layout_.shard_size()}, options);
}

/// The place of a parameter in a tensor of the layout of all_, in the parameter's shape.
at::Tensor ShardedParameters::part_of(at::Tensor& whole, std::size_t parameter) const {
  const at::Tensor& tensor = parameters_[parameter].tensor;
  return whole.narrow(0, layout_.offset(parameter), tensor.numel()).view(tensor.sizes());
}

void ShardedParameters::broadcast_values() {
  const at::NoGradGuard no_grad;
  for (const NamedParameter& parameter : parameters_) {
    at::Tensor values = parameter.tensor.detach();
    group_.broadcast(values);
  }
}

void ShardedParameters::copy_gradients() {
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    const at::Tensor gradient = parameters_[i].tensor.grad();
    gradient.defined() ? part_of(all_, i).copy_(gradient) : part_of(all_, i).zero_();
  }
}

void ShardedParameters::reduce_gradients() {
  if (group_.size() == 1) return;
  const at::NoGradGuard no_grad;
  at::Tensor present = at::zeros({static_cast<std::int64_t>(parameters_.size())}, at::kLong);
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    present[static_cast<std::int64_t>(i)] = parameters_[i].tensor.grad().defined();
  }
  group_.all_reduce_max(present);
  copy_gradients();
  group_.reduce_scatter_sum(gradients_, all_);
  for (std::size_t i = 0; i < own_.size(); ++i) {
    const bool has_gradient = present[static_cast<std::int64_t>(slices_[i].tensor)].item<std::int64_t>() > 0;
    own_[i].tensor.mutable_grad() = has_gradient ? narrow(gradients_, slices_[i]) : at::Tensor();
  }
}

void ShardedParameters::gather_values() {
  if (group_.size() == 1) return;
  const at::NoGradGuard no_grad;
  for (std::size_t i = 0; i < own_.size(); ++i) narrow(values_, slices_[i]).copy_(own_[i].tensor);
  group_.all_gather(all_, values_);
  for (std::size_t i = 0; i < parameters_.size(); ++i) parameters_[i].tensor.copy_(part_of(all_, i));
}

models::NamedTensors ShardedParameters::gather_state(const models::NamedTensors& own_state) {
  if (group_.size() == 1) return own_state;
  models::NamedTensors state;
  for (const char* moment : AdamW::kMoments) {
    at::Tensor shard = at::zeros_like(values_), whole;
    for (std::size_t i = 0; i < own_.size(); ++i) narrow(shard, slices_[i]).copy_(own_state.at(moment + own_[i].name));
    if (group_.leads()) whole = at::empty_like(all_);
    group_.gather(whole, shard);
    if (!group_.leads()) continue;
    for (std::size_t i = 0; i < parameters_.size(); ++i) state[moment + parameters_[i].name] = part_of(whole, i);
  }
  if (group_.leads()) state[AdamW::kNumSteps] = own_state.at(AdamW::kNumSteps);
  return state;
}

models::NamedTensors ShardedParameters::own_state(const models::NamedTensors& whole_state) const {
  if (group_.size() == 1) return whole_state;
  models::NamedTensors state = whole_state;  // what is no moment of a parameter is for the optimizer to judge
  for (const char* moment : AdamW::kMoments) {
    for (const NamedParameter& parameter : parameters_) {
      const auto found = state.find(moment + parameter.name);
      if (found == state.end()) continue;
      require(found->second.sizes() == parameter.tensor.sizes(), ErrorCode::io, "[AdamW] the optimizer state's ",
              found->first, " must be ", parameter.tensor.sizes(), "; got ", found->second.sizes());
      state.erase(found);
    }
    for (const ShardSlice& slice : slices_) {
      const std::string name = moment + parameters_[slice.tensor].name;
      const auto found = whole_state.find(name);
      if (found != whole_state.end()) state[name] = flat_slice(found->second, slice);
    }
  }
  return state;
}

}  // namespace comba::training
