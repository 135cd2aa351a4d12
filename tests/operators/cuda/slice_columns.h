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

/// Forces how many multiprocessors cuda.sm90's prepare has to itself, or with 0 that scan waits for it, for as long as
/// it lives.
struct PrepareMultiprocessors {
  explicit PrepareMultiprocessors(int number) { delta_rule::cuda::sm90::force_prepare_multiprocessors(number); }
  ~PrepareMultiprocessors() { delta_rule::cuda::sm90::force_prepare_multiprocessors(-1); }
  PrepareMultiprocessors(const PrepareMultiprocessors&) = delete;
  PrepareMultiprocessors& operator=(const PrepareMultiprocessors&) = delete;
};

}  // namespace comba::test
