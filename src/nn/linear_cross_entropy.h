#pragma once

#include <ATen/ATen.h>

namespace comba::nn {

/// Mean cross entropy in nats, a scalar in fp32 (double for double), of the logits x W^T over the targets that are not
/// -100:
///
///     loss = mean_r (log sum_v exp(x_r . w_v) - x_r . w_target(r))
///
/// x [..., D] and weight [vocab, D] with targets [...] i64 over the same dimensions; logits have the dtype of x and are
/// never all there: they are made and used up in blocks of tokens, and where a gradient will be wanted each block
/// leaves its own behind, so that backward only scales them. Where they fit one block on the CPU, LibTorch's own
/// operations compute it. Gradients of the weight add up in fp32. No target at all gives NaN, and on a GPU so does one
/// that is no row of the weight. A second derivative is refused where blocks were made.
at::Tensor linear_cross_entropy(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& targets);

/// The same, with the number of tokens of a block given.
at::Tensor linear_cross_entropy_in_blocks(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& targets,
                                          int64_t tokens_per_block);

}  // namespace comba::nn
