#pragma once

#include "operators/delta_rule/cuda/sm90/sm90.h"

namespace comba::test {

constexpr int kSliceColumns[] = {16, 32, 64, 128};

/// Forces a width of cuda.sm90's slices, or with 0 none, for as long as it lives.
struct SliceColumns {
  explicit SliceColumns(int columns) { delta_rule::cuda::sm90::force_slice_columns(columns); }
  ~SliceColumns() { delta_rule::cuda::sm90::force_slice_columns(0); }
  SliceColumns(const SliceColumns&) = delete;
  SliceColumns& operator=(const SliceColumns&) = delete;
};

}  // namespace comba::test
