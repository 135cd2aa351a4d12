#pragma once

#include <ATen/ATen.h>

#include <vector>

namespace comba::nn {

/// x W_i^T for each of the weights.  x [..., in], weights [out_i, in] -> [..., out_i], all in the dtype of x.
/// Weights that are neighbouring rows of one storage (libtorch/columns.h) take one matrix product, of which the results
/// are columns; and so do their gradients, one for dx and one for the weights. Other weights take one each, as linear()
/// does. A second derivative is refused.
std::vector<at::Tensor> joined_linear(const at::Tensor& x, at::TensorList weights);

/// The same, on the CPU always one by one: the bits of linear().
std::vector<at::Tensor> linear_each(const at::Tensor& x, at::TensorList weights);

}  // namespace comba::nn
