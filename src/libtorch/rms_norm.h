#pragma once

#include <ATen/ATen.h>

#include "operators/rms_norm/rms_norm.h"

namespace comba {

/// y = weight x / sqrt(mean(x^2) + eps) f(gate), means over the last dimension, in fp32 for 16-bit x.
/// With an fp32 weight beside a 16-bit x, and on the CPU for every 16-bit x, the gate's function is in fp32 too.
/// f is sigmoid (Comba) or silu (Gated DeltaNet); without a gate (undefined) it is 1.
/// x, gate [..., D], weight [D] -> [..., D] in the dtype of x.  In Python: torch.ops.comba.rms_norm.
/// Throws Error invalid_argument for shapes that do not fit.
at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps, const at::Tensor& gate = {},
                    GateFunction function = GateFunction::sigmoid);

}  // namespace comba
