#include "operators/cuda/device_backward.h"

#include "operators/cuda/device_forward.h"
#include "operators/delta_rule/run.h"

namespace comba::test {

DeviceBackward::DeviceBackward(const char* implementation, Case& c, CUstream_st* stream, const std::string& only)
    : implementation_(device_implementation(implementation)), out_(empty_gradients(c)) {
  for_each_gradient(out_, out_, [&](const std::string& name, Buffer& buffer, Buffer&) {
    if (!only.empty() && name != only) buffer = {};
  });
  args_ = backward_args(c, out_);
  args_.execution = {DeviceType::cuda, stream};
  tensors_.move(args_);
  prepare();
}

void DeviceBackward::prepare() {
  problem_ = delta_rule::check(args_);
  workspace_bytes_ = delta_rule::workspace_bytes(implementation_, problem_);
  workspace_.emplace(workspace_bytes_);
}

void DeviceBackward::use(const DeviceMemory& saved, std::int64_t bytes) {
  args_.saved = {saved.data(), bytes};
  prepare();
}

void DeviceBackward::run() { delta_rule::run(implementation_, problem_, args_, workspace()); }

void DeviceBackward::check_borders() { comba::check_borders(args_, workspace()); }

Workspace DeviceBackward::workspace() const { return {workspace_->data(), workspace_bytes_}; }

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
