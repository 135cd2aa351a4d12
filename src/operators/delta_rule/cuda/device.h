#pragma once

#include "runtime/cuda_check.h"

/// What the implementations ask of the calling thread's current device.
namespace comba::delta_rule::cuda {

inline int attribute_of(int device, cudaDeviceAttr attribute) {
  int value = 0;
  check_cuda(cudaDeviceGetAttribute(&value, attribute, device), "cudaDeviceGetAttribute");
  return value;
}

/// Major number of its compute capability; 0 when no GPU is visible.
inline int compute_capability_major() {
  int device = 0;
  if (cudaGetDevice(&device) != cudaSuccess) return 0;
  return attribute_of(device, cudaDevAttrComputeCapabilityMajor);
}

inline int current_device() {
  int device = 0;
  check_cuda(cudaGetDevice(&device), "cudaGetDevice");
  return device;
}

inline int num_multiprocessors() { return attribute_of(current_device(), cudaDevAttrMultiProcessorCount); }

}  // namespace comba::delta_rule::cuda
