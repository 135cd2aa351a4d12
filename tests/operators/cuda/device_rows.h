#pragma once

#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "operators/cuda/device_memory.h"
#include "operators/cuda/launch.h"
#include "runtime/cuda_check.h"
#include "support/buffer.h"
#include "support/compare.h"

namespace comba::test {

/// How a tensor of `outer` x `inner` rows of `dim` elements lies in memory: as columns [first, first + inner dim) of a
/// tensor of `width` columns.
struct Layout {
  std::int64_t outer = 0, inner = 1, dim = 0, first = 0, width = 0;

  static Layout dense(std::int64_t rows, std::int64_t dim) { return {rows, 1, dim, 0, dim}; }
  /// Eight elements before the columns and `behind` after them.
  static Layout columns(std::int64_t outer, std::int64_t inner, std::int64_t dim, std::int64_t behind = 16) {
    return {outer, inner, dim, 8, 8 + inner * dim + behind};
  }
};

/// Rows in GPU memory between guard zones; what lies between their columns is NaN and has to stay so.
class DeviceRows {
 public:
  /// A result: all NaN.
  DeviceRows(DType dtype, const Layout& layout)
      : layout_(layout), host_(dtype, {layout.outer, layout.width}), device_(bytes()) {
    send();
  }

  /// An input: standard normal numbers times `scale`.
  DeviceRows(DType dtype, const Layout& layout, unsigned seed, double scale = 1) : DeviceRows(dtype, layout) {
    std::mt19937 random(seed);
    std::normal_distribution<double> normal(0, scale);
    for (std::int64_t i = 0; i < count(); ++i) host_.set(place(i), normal(random));
    send();
  }

  std::int64_t count() const { return layout_.outer * layout_.inner * layout_.dim; }
  std::vector<std::int64_t> sizes() const { return {layout_.outer * layout_.inner, layout_.dim}; }
  DType dtype() const { return host_.dtype(); }
  void* data() const { return static_cast<char*>(device_.data()) + layout_.first * size_of(host_.dtype()); }
  cuda::Rows rows() const { return {data(), layout_.inner, layout_.width, layout_.dim}; }
  cuda::ConstRows const_rows() const { return {data(), layout_.inner, layout_.width, layout_.dim}; }

  /// Element i of the rows, row by row.
  double at(std::int64_t i) const { return host_.at(place(i)); }
  std::vector<double> values() const {
    std::vector<double> all(count());
    for (std::int64_t i = 0; i < count(); ++i) all[i] = at(i);
    return all;
  }
  void set(std::int64_t i, double value) { host_.set(place(i), value); }
  void send() { check_cuda(cudaMemcpy(device_.data(), host_.data(), bytes(), cudaMemcpyHostToDevice), "cudaMemcpy"); }

  /// Waits for the GPU, then reads the results; nothing but them may have changed.
  void fetch() {
    check_cuda(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
    Buffer before = host_;
    check_cuda(cudaMemcpy(host_.data(), device_.data(), bytes(), cudaMemcpyDeviceToHost), "cudaMemcpy");
    if (layout_.width == layout_.inner * layout_.dim) return;
    Buffer outside = host_;
    for (std::int64_t i = 0; i < count(); ++i) {
      outside.set(place(i), 0);
      before.set(place(i), 0);
    }
    EXPECT_TRUE(outside.same_bits(before)) << "written between the columns";
  }

  /// What was fetched last.
  Buffer snapshot() const { return host_; }
  bool same_bits(const Buffer& other) const { return host_.same_bits(other); }
  bool same_bits(const DeviceRows& other) const { return host_.same_bits(other.host_); }

 private:
  std::int64_t bytes() const { return host_.count() * size_of(host_.dtype()); }
  std::int64_t place(std::int64_t i) const {
    const std::int64_t in_outer = layout_.inner * layout_.dim;
    return i / in_outer * layout_.width + layout_.first + i % in_outer;
  }

  Layout layout_;
  Buffer host_;
  DeviceMemory device_;
};

/// Half a unit of the last place, which no rounding of a result exceeds, or for fp32 the rounding of a few operations
/// and of the fast exponential.
inline double rounding_tolerance(DType dtype) {
  if (dtype == DType::f32) return 2e-6;
  return dtype == DType::bf16 ? 0x1p-8 : 0x1p-11;
}

inline double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }
inline double silu_derivative(double x) { return sigmoid(x) * (1 + x * (1 - sigmoid(x))); }

}  // namespace comba::test
