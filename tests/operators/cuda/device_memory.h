#pragma once

#include <cstdint>
#include <deque>
#include <type_traits>

#include "comba/delta_rule.h"

namespace comba::test {

/// A piece of GPU memory, full of NaN, between two guard zones that nobody may touch: the destructor looks at them.
class DeviceMemory {
 public:
  explicit DeviceMemory(std::int64_t bytes);
  ~DeviceMemory();
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;

  void* data() const;
  /// NaN again, in every floating dtype.
  void poison();
  void clear();

 private:
  void* memory_ = nullptr;
  std::int64_t bytes_;
};

/// The tensors of one call on the GPU, each with its place in host memory.
class DeviceTensors {
 public:
  /// Copies the tensor to the GPU and makes the view point there. Views to const are inputs, others are results.
  template <class Void>
  void move(BasicView<Void>& view) {
    if (!view.given()) return;
    View host;
    host.data = const_cast<void*>(view.data);
    host.dtype = view.dtype;
    host.rank = view.rank;
    host.sizes = view.sizes;
    host.strides = view.strides;
    view.data = add(host, bytes_of(view), !std::is_const_v<Void>);
  }
  void move(DeltaRuleInputs& in);
  /// All tensors of a backward call.
  void move(DeltaRuleBackward& args);

  /// Copies the inputs from host memory again.
  void send();
  void poison_results();
  void clear_results();
  /// Waits for the GPU, then copies the results into host memory: their elements only, as several may be columns of
  /// one tensor.
  void fetch();
  /// Whether the inputs on the GPU are still those in host memory.
  bool inputs_intact() const;

 private:
  struct Copy {
    Copy(const View& host, std::int64_t bytes, bool result) : host(host), bytes(bytes), result(result), device(bytes) {}
    View host;
    std::int64_t bytes;
    bool result;
    DeviceMemory device;
  };

  template <class Void>
  static std::int64_t bytes_of(const BasicView<Void>& view) {
    if (view.empty()) return 0;
    std::int64_t elements = 1;
    for (int i = 0; i < view.rank; ++i) elements += (view.sizes[i] - 1) * view.strides[i];
    return elements * size_of(view.dtype);
  }
  void* add(const View& host, std::int64_t bytes, bool result);

  std::deque<Copy> copies_;
};

}  // namespace comba::test
