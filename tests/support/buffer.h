#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include "base/half.h"
#include "comba/view.h"

namespace comba::test {

/// A tensor that owns its memory, between two guard zones. Outputs start as NaN.
class Buffer {
 public:
  Buffer() = default;

  Buffer(DType dtype, std::vector<std::int64_t> sizes) : dtype_(dtype), sizes_(std::move(sizes)) {
    count_ = 1;
    for (std::int64_t size : sizes_) count_ *= size;
    bytes_.assign(2 * kGuard + count_ * size_of(dtype), kGuardByte);
    fill(std::vector<double>(count_, std::numeric_limits<double>::quiet_NaN()));
  }

  bool given() const { return !bytes_.empty(); }
  std::int64_t count() const { return count_; }
  DType dtype() const { return dtype_; }
  const std::vector<std::int64_t>& sizes() const { return sizes_; }
  std::uint8_t* data() { return bytes_.data() + kGuard; }
  const std::uint8_t* data() const { return bytes_.data() + kGuard; }

  /// A view of the buffer, absent when there is no buffer.
  View view() {
    View v;
    if (!given()) return v;
    v.data = data();
    v.dtype = dtype_;
    v.rank = static_cast<int>(sizes_.size());
    std::int64_t stride = 1;
    for (int i = v.rank - 1; i >= 0; --i) {
      v.sizes[i] = sizes_[i];
      v.strides[i] = stride;
      stride *= sizes_[i];
    }
    return v;
  }

  void fill(const std::vector<double>& values) {
    for (std::int64_t i = 0; i < count_; ++i) set(i, values[i]);
  }

  void set(std::int64_t i, double value) {
    const float x = static_cast<float>(value);
    switch (dtype_) {
      case DType::f32:
        return put(i, x);
      case DType::bf16:
        return put(i, from_float<bf16>(x));
      case DType::f16:
        return put(i, from_float<f16>(x));
      case DType::i32:
        return put(i, std::isnan(value) ? std::int32_t{-1} : static_cast<std::int32_t>(value));
      case DType::i64:
        return put(i, std::isnan(value) ? std::int64_t{-1} : static_cast<std::int64_t>(value));
    }
  }

  double at(std::int64_t i) const {
    switch (dtype_) {
      case DType::f32:
        return get<float>(i);
      case DType::bf16:
        return to_float(get<bf16>(i));
      case DType::f16:
        return to_float(get<f16>(i));
      case DType::i32:
        return get<std::int32_t>(i);
      case DType::i64:
        return static_cast<double>(get<std::int64_t>(i));
    }
    return 0;
  }

  std::vector<double> values() const {
    std::vector<double> all(count_);
    for (std::int64_t i = 0; i < count_; ++i) all[i] = at(i);
    return all;
  }

  bool same_bits(const Buffer& other) const { return bytes_ == other.bytes_; }

  /// Whether nobody wrote outside the tensor.
  bool guards_intact() const {
    for (std::size_t i = 0; given() && i < kGuard; ++i) {
      if (bytes_[i] != kGuardByte || bytes_[bytes_.size() - 1 - i] != kGuardByte) return false;
    }
    return true;
  }

 private:
  static constexpr std::size_t kGuard = 256;
  static constexpr std::uint8_t kGuardByte = 0xA5;

  template <class T>
  void put(std::int64_t i, T value) {
    std::memcpy(data() + i * sizeof(T), &value, sizeof(T));
  }
  template <class T>
  T get(std::int64_t i) const {
    T value;
    std::memcpy(&value, data() + i * sizeof(T), sizeof(T));
    return value;
  }

  DType dtype_ = DType::f32;
  std::vector<std::int64_t> sizes_;
  std::int64_t count_ = 0;
  std::vector<std::uint8_t> bytes_;
};

}  // namespace comba::test
