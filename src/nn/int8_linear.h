#pragma once

#include <ATen/ATen.h>

#include <utility>

namespace comba::nn {

/// Rows of a matrix as whole numbers from -127 to 127 times one scale a row: a quarter of fp32's bytes.
///     weight[r, c] ~ values[r, c] scales[r],   |error| <= scales[r] / 2,   scales[r] = max_c |weight[r, c]| / 127
/// The scale is rounded up to a number that bf16 holds. weight [out, in] -> values [out, in] i8, scales [out] in the
/// dtype of weight. Throws Error(numerical) where weight has a value that is not finite.
std::pair<at::Tensor, at::Tensor> rounded_to_int8(const at::Tensor& weight);

/// y = (x values^T) scales.  x [..., in], values [out, in] i8, scales [out] -> [..., out] in the dtype of x
/// Few rows of x on the CPU, of a multiple of 32, are rounded to bf16 and multiplied by LibTorch's _weight_int8pack_mm,
/// which reads a quarter of the memory; sums are fp32, y is rounded to bf16. Otherwise values are first widened to the
/// dtype of x. LibTorch's product of that name for GPUs (2.11) takes one thread a result, and so is not used.
at::Tensor int8_linear(const at::Tensor& x, const at::Tensor& values, const at::Tensor& scales);

}  // namespace comba::nn
