#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <initializer_list>
#include <type_traits>

#include "comba/dtype.h"

namespace comba {

/// A tensor somebody else owns: address, element type, sizes and strides (in elements).
/// A default-constructed view means "not given". `Void` is `void` or `const void`.
template <class Void>
struct BasicView {
  static constexpr int kMaxRank = 4;

  Void* data = nullptr;
  DType dtype = DType::f32;
  int rank = 0;
  std::array<std::int64_t, kMaxRank> sizes{};
  std::array<std::int64_t, kMaxRank> strides{};

  BasicView() = default;

  /// A dense row-major tensor. Precondition: at most kMaxRank sizes.
  BasicView(Void* data, DType dtype, std::initializer_list<std::int64_t> shape) : data(data), dtype(dtype) {
    for (std::int64_t size : shape) sizes[rank++] = size;
    std::uint64_t stride = 1;  // unsigned: a shape too large for any memory is for the operators to refuse
    for (int i = rank - 1; i >= 0; --i) {
      strides[i] = static_cast<std::int64_t>(stride);
      stride *= static_cast<std::uint64_t>(sizes[i]);
    }
  }

  /// A mutable view reads as a const one.
  operator BasicView<const void>() const requires(!std::is_const_v<Void>) {
    BasicView<const void> view;
    view.data = data;
    view.dtype = dtype;
    view.rank = rank;
    view.sizes = sizes;
    view.strides = strides;
    return view;
  }

  /// Whether the argument was given at all. An empty tensor (T = 0) is given: it has a rank.
  bool given() const { return rank > 0; }

  /// Whether it has no elements.
  bool empty() const { return std::find(sizes.begin(), sizes.begin() + rank, 0) != sizes.begin() + rank; }

  /// Number of elements. Precondition: it fits 63 bits.
  std::int64_t numel() const {
    std::int64_t count = 1;
    for (int i = 0; i < rank; ++i) count *= sizes[i];
    return count;
  }
};

using View = BasicView<void>;
using ConstView = BasicView<const void>;

}  // namespace comba
