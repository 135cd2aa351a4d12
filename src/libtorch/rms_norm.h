#pragma once

#include <ATen/ATen.h>

#include "operators/rms_norm/rms_norm.h"

namespace comba {

/// y = weight x / sqrt(mean(x^2) + eps) f(gate), means over the last dimension, in fp32 for 16-bit x.
/// With an fp32 weight beside a 16-bit x, on the CPU for every 16-bit x, and in the GPU's kernel, the gate's function
/// is in fp32 too. f is sigmoid (Comba) or silu (Gated DeltaNet); without a gate (undefined) it is 1. x, gate [..., D],
/// weight [D] -> [..., D] in the dtype of x.  In Python: torch.ops.comba.rms_norm. Throws Error invalid_argument for
/// shapes that do not fit.
at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps, const at::Tensor& gate = {},
                    GateFunction function = GateFunction::sigmoid);

/// What a block of a model passes on, and what it computes with.
struct NormedStream {
  at::Tensor stream;  ///< [..., D]  in the dtype of the residual stream
  at::Tensor normed;  ///< [..., D]  in the dtype asked for
};

/// stream' = stream + branch (branch undefined: stream itself); normed = rms_norm(stream', weight, eps), both in one
/// pass on a GPU, and so are their gradients. stream [..., D]; branch [..., D] in `dtype`; weight [D].
/// Whoever goes on with stream' instead of stream spares backward a pass, that of adding the gradients of both uses.
NormedStream rms_norm_of_stream(const at::Tensor& stream, const at::Tensor& branch, const at::Tensor& weight,
                                double eps, at::ScalarType dtype);

}  // namespace comba
