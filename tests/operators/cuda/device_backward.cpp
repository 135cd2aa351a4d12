#include "operators/cuda/device_backward.h"

#include "operators/cuda/device_forward.h"

namespace comba::test {

DeviceBackward::DeviceBackward(const char* implementation, Case& c, CUstream_st* stream, const std::string& only)
    : implementation_(device_implementation(implementation)), out_(empty_gradients(c)) {
  for_each_gradient(out_, out_, [&](const std::string& name, Buffer& buffer, Buffer&) {
    if (!only.empty() && name != only) buffer = {};
  });
  args_ = backward_args(c, out_);
  args_.execution = {DeviceType::cuda, stream};
  tensors_.move(args_);
  problem_ = delta_rule::check(args_);
  workspace_bytes_ = implementation_.backward_workspace(problem_);
  workspace_.emplace(workspace_bytes_);
}

void DeviceBackward::run() { implementation_.backward(problem_, args_, {workspace_->data(), workspace_bytes_}); }

void DeviceBackward::poison() {
  workspace_->poison();
  tensors_.poison_results();
}

const Gradients& DeviceBackward::fetch() {
  tensors_.fetch();
  return out_;
}

::testing::AssertionResult same_bits(const Gradients& x, const Gradients& y) {
  std::string different;
  for_each_gradient(x, y, [&](const char* name, const Buffer& one, const Buffer& other) {
    if (one.given() != other.given() || (one.given() && !one.same_bits(other))) different += std::string(" ") + name;
  });
  if (different.empty()) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure() << "other bits in" << different;
}

}  // namespace comba::test
