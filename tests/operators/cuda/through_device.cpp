#include "operators/cuda/through_device.h"

#include <cuda_runtime_api.h>

#include <utility>

#include "operators/cuda/device_memory.h"
#include "operators/delta_rule/run.h"
#include "runtime/cuda_check.h"

namespace comba::test {
namespace {

using delta_rule::Implementation;
using delta_rule::Problem;

constexpr Execution kOnDevice = {DeviceType::cuda, nullptr};

/// Implementation number kIndex of the GPU.
template <std::size_t kIndex>
struct ThroughDevice {
  static const Implementation& implementation() {
    static const Implementation one = delta_rule::cuda::implementations()[kIndex];
    return one;
  }

  static std::string refusal(const Problem& host) {
    Problem x = host;
    x.execution = kOnDevice;
    return implementation().refusal(x);
  }
  static std::int64_t no_workspace(const Problem&) { return 0; }

  /// A verb, on tensors of the device.
  template <class Args>
  static void call(const Args& args) {
    const Problem x = delta_rule::check(args);
    const std::int64_t bytes = delta_rule::workspace_bytes(implementation(), x);
    const DeviceMemory workspace(bytes);
    delta_rule::run(implementation(), x, args, {workspace.data(), bytes});
  }

  static void forward(const Problem&, const DeltaRuleForward& host, Workspace) {
    DeltaRuleForward args = host;
    args.execution = kOnDevice;
    DeviceTensors tensors;
    tensors.move(args.inputs);
    tensors.move(args.o);
    tensors.move(args.final_state);
    call(args);
    tensors.fetch();
  }

  static void backward(const Problem&, const DeltaRuleBackward& host, Workspace) {
    DeltaRuleBackward args = host;
    args.execution = kOnDevice;
    DeviceTensors tensors;
    tensors.move(args);
    call(args);
    tensors.fetch();
  }

  static void decode_step(const Problem&, const DeltaRuleDecode& host, Workspace) {
    DeltaRuleDecode args = host;
    args.execution = kOnDevice;
    DeviceTensors tensors;
    tensors.move(args.inputs);
    tensors.move(args.state);
    tensors.move(args.o);
    tensors.move(args.state_indices);
    tensors.move(args.num_accepted);
    call(args);
    tensors.fetch();
  }

  static Implementation adapted() {
    const bool learns = implementation().backward != nullptr, decodes = implementation().decode_step != nullptr;
    return {implementation().name,
            refusal,
            no_workspace,
            no_workspace,
            no_workspace,
            forward,
            learns ? backward : nullptr,
            decodes ? decode_step : nullptr};
  }
};

constexpr std::size_t kAtMost = 8;

template <std::size_t... kIndices>
std::vector<Implementation> adapted(std::size_t count, std::index_sequence<kIndices...>) {
  require(count <= sizeof...(kIndices), ErrorCode::internal, "[tests] at most ", sizeof...(kIndices),
          " implementations on the GPU can be tested; got ", count);
  std::vector<Implementation> list;
  (..., (kIndices < count ? list.push_back(ThroughDevice<kIndices>::adapted()) : void()));
  return list;
}

}  // namespace

std::vector<Implementation> implementations_through_device() {
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) return {};
  return adapted(delta_rule::cuda::implementations().size(), std::make_index_sequence<kAtMost>{});
}

}  // namespace comba::test
