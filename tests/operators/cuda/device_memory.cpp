#include "operators/cuda/device_memory.h"

#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "runtime/cuda_check.h"

namespace comba::test {
namespace {

constexpr std::int64_t kGuard = 4096;
constexpr unsigned char kNan = 0xFF;  ///< as every byte: NaN in every floating dtype

/// COMBA_TEST_POISON=0: memory stays as it is allotted, for compute-sanitizer's initcheck, to which NaN is a value.
bool poisons() {
  const char* wish = std::getenv("COMBA_TEST_POISON");
  return wish == nullptr || std::strcmp(wish, "0") != 0;
}

/// The elements of a tensor from a copy of the memory it spans; what lies between them stays as it is.
void copy_elements(const std::vector<char>& from, const View& to) {
  const std::int64_t bytes = size_of(to.dtype);
  std::array<std::int64_t, View::kMaxRank> index = {};
  std::int64_t offset = 0;
  for (std::int64_t i = to.numel(); i > 0; --i) {
    std::memcpy(static_cast<char*>(to.data) + offset, from.data() + offset, bytes);
    for (int axis = to.rank - 1; axis >= 0; --axis) {
      offset += to.strides[axis] * bytes;
      if (++index[axis] < to.sizes[axis]) break;
      offset -= to.strides[axis] * to.sizes[axis] * bytes;
      index[axis] = 0;
    }
  }
}

bool untouched(const void* guard) {
  std::vector<unsigned char> bytes(kGuard);
  EXPECT_EQ(cudaMemcpy(bytes.data(), guard, kGuard, cudaMemcpyDeviceToHost), cudaSuccess);
  return std::all_of(bytes.begin(), bytes.end(), [](unsigned char byte) { return byte == kNan; });
}

}  // namespace

DeviceMemory::DeviceMemory(std::int64_t bytes) : bytes_(bytes) {
  check_cuda(cudaMalloc(&memory_, bytes + 2 * kGuard), "cudaMalloc");
  check_cuda(cudaMemset(memory_, kNan, kGuard), "cudaMemset");
  check_cuda(cudaMemset(static_cast<char*>(data()) + bytes, kNan, kGuard), "cudaMemset");
  poison();
}

DeviceMemory::~DeviceMemory() {
  EXPECT_TRUE(untouched(memory_)) << "written before a tensor";
  EXPECT_TRUE(untouched(static_cast<char*>(data()) + bytes_)) << "written behind a tensor";
  cudaFree(memory_);
}

void* DeviceMemory::data() const { return static_cast<char*>(memory_) + kGuard; }

void DeviceMemory::poison() {
  if (poisons()) check_cuda(cudaMemset(data(), kNan, bytes_), "cudaMemset");
}

void DeviceMemory::clear() { check_cuda(cudaMemset(data(), 0, bytes_), "cudaMemset"); }

void DeviceTensors::move(DeltaRuleInputs& in) {
  for (ConstView* view : {&in.q, &in.k, &in.v, &in.p, &in.b, &in.d, &in.beta, &in.beta_logit, &in.g, &in.a, &in.A_log,
                          &in.dt_bias, &in.initial_state, &in.cu_seqlens}) {
    move(*view);
  }
}

void DeviceTensors::move(DeltaRuleBackward& args) {
  move(args.inputs);
  move(args.do_);
  move(args.d_final_state);
  for (View* view : {&args.dq, &args.dk, &args.dv, &args.dp, &args.db, &args.dd, &args.dbeta, &args.dbeta_logit,
                     &args.dg, &args.da, &args.dA_log, &args.ddt_bias, &args.d_initial_state}) {
    move(*view);
  }
}

void* DeviceTensors::add(const View& host, std::int64_t bytes, bool result) {
  const Copy& copy = copies_.emplace_back(host, bytes, result);
  check_cuda(cudaMemcpy(copy.device.data(), host.data, bytes, cudaMemcpyHostToDevice), "cudaMemcpy");
  return copy.device.data();
}

void DeviceTensors::send() {
  for (const Copy& copy : copies_) {
    if (copy.result) continue;
    check_cuda(cudaMemcpy(copy.device.data(), copy.host.data, copy.bytes, cudaMemcpyHostToDevice), "cudaMemcpy");
  }
  check_cuda(cudaDeviceSynchronize(), "cudaDeviceSynchronize");  // streams that do not wait for the default one
}

void DeviceTensors::poison_results() {
  for (Copy& copy : copies_) {
    if (copy.result) copy.device.poison();
  }
  check_cuda(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
}

void DeviceTensors::clear_results() {
  for (Copy& copy : copies_) {
    if (copy.result) copy.device.clear();
  }
  check_cuda(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
}

void DeviceTensors::fetch() {
  check_cuda(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
  for (const Copy& copy : copies_) {
    if (!copy.result) continue;
    std::vector<char> bytes(copy.bytes);
    check_cuda(cudaMemcpy(bytes.data(), copy.device.data(), copy.bytes, cudaMemcpyDeviceToHost), "cudaMemcpy");
    copy_elements(bytes, copy.host);
  }
}

bool DeviceTensors::inputs_intact() const {
  for (const Copy& copy : copies_) {
    if (copy.result) continue;
    std::vector<unsigned char> bytes(copy.bytes);
    check_cuda(cudaMemcpy(bytes.data(), copy.device.data(), copy.bytes, cudaMemcpyDeviceToHost), "cudaMemcpy");
    if (std::memcmp(bytes.data(), copy.host.data, copy.bytes) != 0) return false;
  }
  return true;
}

}  // namespace comba::test
