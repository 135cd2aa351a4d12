#include "training/gradient_reducer.h"

#include <torch/csrc/autograd/function_hook.h>
#include <torch/csrc/autograd/variable.h>

#include <algorithm>
#include <numeric>
#include <tuple>
#include <utility>

namespace comba::training {

/// What autograd calls when a parameter's gradient is complete.
class GradientReducer::Hook : public torch::autograd::PostAccumulateGradHook {
 public:
  Hook(GradientReducer& reducer, std::size_t parameter) : reducer_(reducer), parameter_(parameter) {}

  void operator()(const at::Tensor&) override {
    if (!reducer_.in_pass_) return;
    reducer_.take(parameter_);
    reducer_.start_complete_buckets();
  }

 private:
  GradientReducer& reducer_;
  std::size_t parameter_;
};

GradientReducer::GradientReducer(std::vector<at::Tensor> parameters, const std::vector<bool>& is_early,
                                 const ShardLayout& layout, distributed::ProcessGroup& group, at::Tensor whole,
                                 at::Tensor own)
    : parameters_(std::move(parameters)),
      layout_(layout),
      group_(group),
      whole_(std::move(whole)),
      own_(std::move(own)),
      order_(static_cast<std::size_t>(layout.num_buckets())),
      buckets_(order_.size()) {
  std::vector<bool> is_late(order_.size());
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    torch::autograd::impl::set_post_acc_grad_hooks(parameters_[i], std::make_unique<Hook>(*this, i));
    const auto [begin, end] = layout_.buckets_of(i);
    for (std::int64_t bucket = begin; bucket < end && !is_early[i]; ++bucket) is_late[bucket] = true;
  }
  std::iota(order_.begin(), order_.end(), 0);
  std::ranges::sort(order_, {}, [&](std::int64_t bucket) { return std::tuple(bool(is_late[bucket]), -bucket); });
}

GradientReducer::~GradientReducer() {
  for (const at::Tensor& parameter : parameters_) {
    torch::autograd::impl::set_post_acc_grad_hooks(parameter, nullptr);
  }
}

void GradientReducer::begin_pass(bool first, bool last) {
  first_ = first;
  reduces_ = last || !whole_.defined();
  taken_.assign(parameters_.size(), false);
  for (Bucket& bucket : buckets_) bucket = Bucket();
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    const auto [begin, end] = layout_.buckets_of(i);
    for (std::int64_t bucket = begin; bucket < end; ++bucket) ++buckets_[bucket].missing;
  }
  num_started_ = 0;
  in_pass_ = true;
}

void GradientReducer::end_pass() {
  const at::NoGradGuard no_grad;
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    if (!taken_[i]) take(i);
  }
  start_complete_buckets();
  in_pass_ = false;
  if (!reduces_) return;
  for (const std::int64_t index : order_) {
    Bucket& bucket = buckets_[index];
    bucket.pending->wait();
    at::Tensor own = own_.narrow(0, index * layout_.piece_size(), layout_.piece_size());
    if (bucket.sum.data_ptr() != own.data_ptr()) own.add_(bucket.sum);
    bucket = Bucket();
  }
}

void GradientReducer::take(std::size_t parameter) {
  const at::NoGradGuard no_grad;
  const at::Tensor gradient = parameters_[parameter].grad();
  parameters_[parameter].mutable_grad() = at::Tensor();
  place(parameter, gradient);
  taken_[parameter] = true;
  const auto [begin, end] = layout_.buckets_of(parameter);
  for (std::int64_t bucket = begin; bucket < end; ++bucket) --buckets_[bucket].missing;
}

/// Writes or adds a gradient, undefined for zero, to its part of each bucket.
void GradientReducer::place(std::size_t parameter, const at::Tensor& gradient) {
  const std::int64_t offset = layout_.offset(parameter), size = parameters_[parameter].numel();
  const at::Tensor flat = gradient.defined() ? gradient.reshape({-1}) : gradient;
  const bool adds = whole_.defined() && !first_;
  const auto [first_bucket, last_bucket] = layout_.buckets_of(parameter);
  for (std::int64_t bucket = first_bucket; bucket < last_bucket; ++bucket) {
    const std::int64_t start = bucket * layout_.bucket_size();
    const std::int64_t begin = std::max(offset, start), end = std::min(offset + size, start + layout_.bucket_size());
    at::Tensor part = source_of(bucket).narrow(0, begin - start, end - begin);
    if (!gradient.defined()) {
      if (!adds) part.zero_();
    } else if (adds) {
      part.add_(flat.narrow(0, begin - offset, end - begin));
    } else {
      part.copy_(flat.narrow(0, begin - offset, end - begin));
    }
  }
}

at::Tensor GradientReducer::source_of(std::int64_t index) {
  Bucket& bucket = buckets_[index];
  if (bucket.source.defined()) return bucket.source;
  const bool has_padding = index + 1 == layout_.num_buckets();
  if (whole_.defined()) {
    bucket.source = whole_.narrow(0, index * layout_.bucket_size(), layout_.bucket_size());
  } else if (has_padding) {
    bucket.source = at::zeros({layout_.bucket_size()}, own_.options());
  } else {
    bucket.source = at::empty({layout_.bucket_size()}, own_.options());
  }
  return bucket.source;
}

void GradientReducer::start_complete_buckets() {
  if (!reduces_) return;
  for (; num_started_ < order_.size() && buckets_[order_[num_started_]].missing == 0; ++num_started_) {
    const std::int64_t index = order_[num_started_];
    Bucket& bucket = buckets_[index];
    const at::Tensor own = own_.narrow(0, index * layout_.piece_size(), layout_.piece_size());
    if (layout_.num_shards() == 1) {
      bucket.sum = source_of(index);
      bucket.pending = group_.start_all_reduce_sum(bucket.sum);
      continue;
    }
    bucket.sum = first_ || whole_.defined() ? own : at::empty_like(own);
    bucket.pending = group_.start_reduce_scatter_sum(bucket.sum, source_of(index));
    if (!whole_.defined()) bucket.source = at::Tensor();  // the call keeps it as long as it is read
  }
}

}  // namespace comba::training
