#include "training/flat_parameters.h"

#include <ATen/ops/_foreach_copy.h>
#include <ATen/ops/_foreach_norm.h>

#include <algorithm>
#include <utility>

#include "base/message.h"

namespace comba::training {
namespace {

int kind_of(const NamedParameter& parameter) { return parameter.is_linear ? 0 : parameter.weight_decay ? 1 : 2; }

std::vector<NamedParameter> in_flat_order(std::vector<NamedParameter> parameters) {
  std::ranges::stable_sort(parameters, {}, kind_of);
  return parameters;
}

std::vector<std::int64_t> sizes_of(const std::vector<NamedParameter>& parameters) {
  std::vector<std::int64_t> sizes;
  sizes.reserve(parameters.size());
  for (const NamedParameter& parameter : parameters) sizes.push_back(parameter.tensor.numel());
  return sizes;
}

}  // namespace

FlatParameters::FlatParameters(std::vector<NamedParameter> parameters, distributed::ProcessGroup& group,
                               const FlatOptions& flat)
    : parameters_(in_flat_order(std::move(parameters))),
      group_(group),
      layout_(sizes_of(parameters_), flat.zero_stage == 0 ? 1 : group.size(),
              group.size() == 1 ? 0 : flat.bucket_size) {
  const at::NoGradGuard no_grad;
  const at::TensorOptions options = parameters_.front().tensor.options().requires_grad(false).dtype(at::kFloat);
  values_ = at::zeros({layout_.size()}, options);
  own_gradients_ = at::zeros({layout_.shard_size()}, options);
  const auto num_linear = std::ranges::count_if(parameters_, &NamedParameter::is_linear);
  const std::int64_t linear_elements =
      num_linear == 0 ? 0 : layout_.offset(num_linear - 1) + parameters_[num_linear - 1].tensor.numel();
  if (flat.linear_dtype) copies_ = at::empty({linear_elements}, options.dtype(*flat.linear_dtype));
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    at::Tensor tensor = parameters_[i].tensor;
    masters_.push_back(part_of(values_, i));
    masters_[i].copy_(tensor);
    tensor.set_data(masters_[i]);
    copy_views_.push_back(flat.linear_dtype && parameters_[i].is_linear ? part_of(copies_, i) : at::Tensor());
  }
  find_own();
  if (group_.size() > 1) make_reducer(flat.zero_stage);
  refresh_copies();
}

void FlatParameters::make_reducer(int zero_stage) {
  std::vector<at::Tensor> tensors;
  std::vector<bool> is_early;
  for (const NamedParameter& parameter : parameters_) {
    tensors.push_back(parameter.tensor);
    is_early.push_back(parameter.is_linear);
  }
  const at::Tensor whole = zero_stage == 0 ? own_gradients_ : zero_stage == 1 ? at::zeros_like(values_) : at::Tensor();
  reducer_ = std::make_unique<GradientReducer>(std::move(tensors), is_early, layout_, group_, whole, own_gradients_);
}

/// The place of a parameter in a buffer, in the parameter's shape.
at::Tensor FlatParameters::part_of(const at::Tensor& buffer, std::size_t parameter) const {
  const at::Tensor& tensor = parameters_[parameter].tensor;
  return buffer.narrow(0, layout_.offset(parameter), tensor.numel()).view(tensor.sizes());
}

/// Slices that follow each other in the values and in the shard, and are decayed alike, are one piece.
void FlatParameters::find_own() {
  slices_ = layout_.slices(layout_.num_shards() == 1 ? 0 : group_.rank());
  std::int64_t value_end = -1;
  std::vector<std::pair<std::int64_t, std::int64_t>> places;  // in the shard: begin and end
  std::vector<std::int64_t> begins;                           // in the values
  std::vector<bool> decays;
  for (const ShardSlice& slice : slices_) {
    const std::int64_t begin = layout_.offset(slice.tensor) + slice.first;
    const bool decay = parameters_[slice.tensor].weight_decay;
    own_gradient_views_.push_back(own_gradients_.narrow(0, slice.offset, slice.size));
    if (begin != value_end || decays.back() != decay) {
      places.emplace_back(slice.offset, slice.offset);
      begins.push_back(begin);
      decays.push_back(decay);
    }
    places.back().second = slice.offset + slice.size;
    value_end = begin + slice.size;
  }
  for (std::size_t i = 0; i < places.size(); ++i) {
    const std::int64_t size = places[i].second - places[i].first;
    own_.push_back({.value = values_.narrow(0, begins[i], size),
                    .gradient = own_gradients_.narrow(0, places[i].first, size),
                    .weight_decay = decays[i]});
  }
}

void FlatParameters::show(bool copies) {
  if (!copies_.defined()) return;
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    if (copy_views_[i].defined()) parameters_[i].tensor.set_data(copies ? copy_views_[i] : masters_[i]);
  }
}

void FlatParameters::refresh_copies() {
  const at::NoGradGuard no_grad;
  if (copies_.defined()) copies_.copy_(values_.narrow(0, 0, copies_.numel()));
}

void FlatParameters::begin_pass(bool first, bool last) {
  replaces_ = first;
  if (reducer_) reducer_->begin_pass(first, last);
}

void FlatParameters::end_pass() { reducer_ ? reducer_->end_pass() : collect_gradients(); }

/// In a process alone the shard is everything.
void FlatParameters::collect_gradients() {
  const at::NoGradGuard no_grad;
  std::vector<at::Tensor> places, gradients;
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    const at::Tensor gradient = parameters_[i].tensor.grad();
    parameters_[i].tensor.mutable_grad() = at::Tensor();
    if (gradient.defined()) {
      places.push_back(part_of(own_gradients_, i));
      gradients.push_back(gradient);
    } else if (replaces_) {
      part_of(own_gradients_, i).zero_();
    }
  }
  if (places.empty()) return;
  if (replaces_) return at::_foreach_copy_(places, gradients);
  for (std::size_t i = 0; i < places.size(); ++i) places[i].add_(gradients[i]);
}

at::Tensor FlatParameters::square_of_gradients() const {
  const at::NoGradGuard no_grad;
  if (own_gradient_views_.empty()) return at::zeros({}, values_.options().dtype(at::kDouble));
  const at::Tensor sum = at::stack(at::_foreach_norm(own_gradient_views_)).to(at::kDouble).square().sum();
  return layout_.num_shards() == group_.size() ? sum : sum / group_.size();
}

std::string FlatParameters::non_finite_gradient() {
  const auto count = static_cast<std::int64_t>(parameters_.size());
  std::int64_t first = count;
  for (std::size_t i = 0; i < slices_.size() && first == count; ++i) {
    if (!at::isfinite(own_gradient_views_[i]).all().item<bool>()) first = static_cast<std::int64_t>(slices_[i].tensor);
  }
  at::Tensor behind = at::full({1}, count - first, at::kLong);
  group_.all_reduce_max(behind);
  first = count - behind.item<std::int64_t>();
  return first == count ? std::string() : parameters_[static_cast<std::size_t>(first)].name;
}

void FlatParameters::broadcast_values() {
  const at::NoGradGuard no_grad;
  group_.broadcast(values_);
  refresh_copies();
}

void FlatParameters::gather_values() {
  const at::NoGradGuard no_grad;
  for (std::int64_t bucket = 0; layout_.num_shards() > 1 && bucket < layout_.num_buckets(); ++bucket) {
    at::Tensor whole = values_.narrow(0, bucket * layout_.bucket_size(), layout_.bucket_size());
    at::Tensor own = whole.narrow(0, group_.rank() * layout_.piece_size(), layout_.piece_size()).clone();
    group_.all_gather(whole, own);
  }
  refresh_copies();
}

models::NamedTensors FlatParameters::gather(const std::string& prefix, const at::Tensor& own_elements) {
  const at::NoGradGuard no_grad;
  at::Tensor whole = own_elements;
  if (layout_.num_shards() == 1) {
    if (!group_.leads()) return {};
  } else {
    at::Tensor shard = at::zeros({layout_.shard_size()}, own_elements.options());
    shard.narrow(0, 0, own_elements.numel()).copy_(own_elements);
    if (group_.leads()) whole = at::empty({layout_.size()}, own_elements.options());
    group_.gather(whole, shard);
    if (!group_.leads()) return {};
    whole = whole.view({layout_.num_shards(), layout_.num_buckets(), -1}).transpose(0, 1).reshape({-1});
  }
  models::NamedTensors named;
  for (std::size_t i = 0; i < parameters_.size(); ++i) named[prefix + parameters_[i].name] = part_of(whole, i);
  return named;
}

void FlatParameters::scatter(const std::string& prefix, const models::NamedTensors& whole,
                             const at::Tensor& own_elements) const {
  const at::NoGradGuard no_grad;
  for (const ShardSlice& slice : slices_) {
    const at::Tensor& tensor = whole.at(prefix + parameters_[slice.tensor].name);
    own_elements.narrow(0, slice.offset, slice.size).copy_(tensor.reshape({-1}).narrow(0, slice.first, slice.size));
  }
}

}  // namespace comba::training
