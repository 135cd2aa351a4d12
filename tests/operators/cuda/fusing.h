#pragma once

#include "operators/delta_rule/cuda/sm90/sm90.h"

namespace comba::test {

/// Forces whether the forward pass of cuda.sm90 is one kernel, for as long as it lives.
struct Fusing {
  explicit Fusing(delta_rule::cuda::sm90::Fusing when) { delta_rule::cuda::sm90::force_fusing(when); }
  explicit Fusing(bool fused)
      : Fusing(fused ? delta_rule::cuda::sm90::Fusing::wherever_possible : delta_rule::cuda::sm90::Fusing::never) {}
  ~Fusing() { delta_rule::cuda::sm90::force_fusing(delta_rule::cuda::sm90::Fusing::never); }
  Fusing(const Fusing&) = delete;
  Fusing& operator=(const Fusing&) = delete;
};

}  // namespace comba::test
