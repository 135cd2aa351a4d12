#pragma once

#include <cstdint>

#include "base/half.h"
#include "comba/view.h"

/// Access to single elements of views, whatever their dtype and strides.
namespace comba::delta_rule {

/// Offset in elements of [i, j, k, l]; indices beyond the rank are ignored.
template <class Void>
std::int64_t offset_of(const BasicView<Void>& view, std::int64_t i, std::int64_t j = 0, std::int64_t k = 0,
                       std::int64_t l = 0) {
  return i * view.strides[0] + j * view.strides[1] + k * view.strides[2] + l * view.strides[3];
}

inline float load(const ConstView& view, std::int64_t offset) {
  switch (view.dtype) {
    case DType::bf16:
      return to_float(static_cast<const bf16*>(view.data)[offset]);
    case DType::f16:
      return to_float(static_cast<const f16*>(view.data)[offset]);
    default:
      return static_cast<const float*>(view.data)[offset];
  }
}

inline void store(const View& view, std::int64_t offset, float value) {
  switch (view.dtype) {
    case DType::bf16:
      static_cast<bf16*>(view.data)[offset] = from_float<bf16>(value);
      break;
    case DType::f16:
      static_cast<f16*>(view.data)[offset] = from_float<f16>(value);
      break;
    default:
      static_cast<float*>(view.data)[offset] = value;
  }
}

}  // namespace comba::delta_rule
