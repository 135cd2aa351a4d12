#include "operators/cuda/device_forward.h"

#include <stdexcept>

#include "operators/delta_rule/run.h"

namespace comba::test {

delta_rule::Implementation device_implementation(const std::string& name) {
  for (const delta_rule::Implementation& implementation : delta_rule::cuda::implementations()) {
    if (implementation.name == name) return implementation;
  }
  throw std::invalid_argument("no implementation has the name " + name);
}

DeviceForward::DeviceForward(const char* implementation, Case& c, CUstream_st* stream, bool with_final_state)
    : implementation_(device_implementation(implementation)) {
  const Description& x = c.description;
  out_.o = Buffer(x.dtype, {x.B, x.T, x.HV, x.V});
  if (with_final_state) out_.final_state = Buffer(DType::f32, {c.num_sequences(), x.HV, x.K, x.V});
  args_ = {.options = c.options,
           .inputs = c.inputs(),
           .o = out_.o.view(),
           .final_state = out_.final_state.view(),
           .execution = {DeviceType::cuda, stream}};
  tensors_.move(args_.inputs);
  tensors_.move(args_.o);
  tensors_.move(args_.final_state);
  prepare();
}

void DeviceForward::prepare() {
  problem_ = delta_rule::check(args_);
  workspace_bytes_ = delta_rule::workspace_bytes(implementation_, problem_);
  workspace_.emplace(workspace_bytes_);
}

std::int64_t DeviceForward::saved_bytes() const { return delta_rule::saved_bytes(implementation_, problem_); }

void DeviceForward::save_to(const DeviceMemory& saved) {
  args_.saved = {saved.data(), saved_bytes()};
  prepare();
}

void DeviceForward::run() { delta_rule::run(implementation_, problem_, args_, workspace()); }

void DeviceForward::check_borders() { comba::check_borders(args_, workspace()); }

Workspace DeviceForward::workspace() const { return {workspace_->data(), workspace_bytes_}; }

void DeviceForward::poison() {
  workspace_->poison();
  tensors_.poison_results();
}

const Outputs& DeviceForward::fetch() {
  tensors_.fetch();
  return out_;
}

std::vector<const char*> device_implementations_for(Case& c) {
  std::vector<const char*> names;
  for (const delta_rule::Implementation& implementation : implementations_for(c)) names.push_back(implementation.name);
  return names;
}

}  // namespace comba::test
