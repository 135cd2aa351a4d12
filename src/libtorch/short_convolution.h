#pragma once

#include <ATen/ATen.h>

namespace comba {

/// y[t, c] = silu(sum_j weight[c, j] x[t - (W - 1) + j, c]): causal, one filter a channel, SiLU behind it.
/// x [B, T, C], weight [C, 1, W] -> [B, T, C].  Before its first token a sequence reads `tail` [B, W - 1, C], which has
/// no gradient, or zeros; with cu_seqlens each packed sequence reads zeros, and `tail` must be absent.
/// 16-bit tensors on the CPU are computed in fp32, those on a GPU by a kernel for W up to 4, which does not look at the
/// borders: those that are none give results without sense, unless they lie in host memory. In Python:
/// torch.ops.comba.short_convolution. Throws Error invalid_argument for shapes or borders that do not fit.
at::Tensor short_convolution(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& tail = {},
                             const at::Tensor& cu_seqlens = {});

/// The same of the next tokens of B streams; `tail` then holds their last W - 1 inputs. Without gradients.
at::Tensor short_convolution_step(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& tail);

}  // namespace comba
