#include "operators/cuda/through_device.h"

#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <cstring>
#include <deque>

#include "runtime/cuda_check.h"

namespace comba::test {
namespace {

using delta_rule::Implementation;
using delta_rule::Problem;

/// A piece of GPU memory with what lies around it filled by a pattern that nobody may touch.
class DeviceMemory {
 public:
  explicit DeviceMemory(std::int64_t bytes) : bytes_(bytes) {
    check_cuda(cudaMalloc(&memory_, bytes + 2 * kGuard), "cudaMalloc");
    check_cuda(cudaMemset(memory_, 0xFF, bytes + 2 * kGuard), "cudaMemset");  // NaN in every floating dtype
  }
  ~DeviceMemory() {
    std::vector<unsigned char> all(bytes_ + 2 * kGuard);
    EXPECT_EQ(cudaMemcpy(all.data(), memory_, all.size(), cudaMemcpyDeviceToHost), cudaSuccess);
    for (std::int64_t i = 0; i < kGuard; ++i) {
      EXPECT_EQ(all[i], 0xFF) << "written before a tensor";
      EXPECT_EQ(all[kGuard + bytes_ + i], 0xFF) << "written behind a tensor";
    }
    cudaFree(memory_);
  }
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;

  void* data() const { return static_cast<char*>(memory_) + kGuard; }

 private:
  static constexpr std::int64_t kGuard = 256;
  void* memory_ = nullptr;
  std::int64_t bytes_;
};

/// The tensors of one call on the GPU.
class DeviceTensors {
 public:
  template <class Void>
  void move(BasicView<Void>& view) {
    if (!view.given()) return;
    std::int64_t elements = 1;
    for (int i = 0; i < view.rank; ++i) elements += (view.sizes[i] - 1) * view.strides[i];
    const std::int64_t bytes = view.empty() ? 0 : elements * size_of(view.dtype);
    copies_.emplace_back(const_cast<void*>(view.data), bytes, !std::is_const_v<Void>);
    view.data = copies_.back().device.data();
  }

  void move(DeltaRuleInputs& in) {
    for (ConstView* view : {&in.q, &in.k, &in.v, &in.p, &in.b, &in.d, &in.beta, &in.beta_logit, &in.g, &in.a, &in.A_log,
                            &in.dt_bias, &in.initial_state, &in.cu_seqlens}) {
      move(*view);
    }
  }

  /// Waits for the GPU, then copies the results into host memory.
  void fetch() {
    check_cuda(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
    for (const Copy& copy : copies_) {
      if (copy.written) {
        check_cuda(cudaMemcpy(copy.host, copy.device.data(), copy.bytes, cudaMemcpyDeviceToHost), "cudaMemcpy");
      }
    }
  }

 private:
  struct Copy {
    Copy(void* host, std::int64_t bytes, bool written) : host(host), bytes(bytes), written(written), device(bytes) {
      check_cuda(cudaMemcpy(device.data(), host, bytes, cudaMemcpyHostToDevice), "cudaMemcpy");
    }
    void* host;
    std::int64_t bytes;
    bool written;
    DeviceMemory device;
  };
  std::deque<Copy> copies_;
};

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

  static void forward(const Problem&, const DeltaRuleForward& host, Workspace) {
    DeltaRuleForward args = host;
    args.execution = kOnDevice;
    DeviceTensors tensors;
    tensors.move(args.inputs);
    tensors.move(args.o);
    tensors.move(args.final_state);
    const Problem x = delta_rule::check(args);
    const std::int64_t bytes = implementation().forward_workspace(x);
    const DeviceMemory workspace(bytes);
    implementation().forward(x, args, {workspace.data(), bytes});
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
    const Problem x = delta_rule::check(args);
    const std::int64_t bytes = implementation().decode_workspace(x);
    const DeviceMemory workspace(bytes);
    implementation().decode_step(x, args, {workspace.data(), bytes});
    tensors.fetch();
  }

  static Implementation adapted() {
    return {implementation().name, refusal, no_workspace, nullptr, no_workspace, forward, nullptr, decode_step};
  }
};

}  // namespace

std::vector<Implementation> implementations_through_device() {
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) return {};
  return {ThroughDevice<0>::adapted(), ThroughDevice<1>::adapted()};
}

}  // namespace comba::test
