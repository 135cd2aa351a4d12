#pragma once

#include <ATen/ATen.h>

/// What the operators with a kernel for the CPU alone have in common. Each also has its definition in LibTorch's
/// operations, which serves every other device and dtype.
namespace comba {

/// Whether a kernel for dense fp32 on the CPU can take these tensors.
bool are_cpu_floats(std::initializer_list<at::Tensor> tensors);

/// Whether an operator on x with these weights is computed in fp32 and its result rounded to the dtype of x: 16-bit x
/// beside fp32 weights, and on the CPU, whose kernels are for fp32, every 16-bit x.
bool is_computed_in_floats(const at::Tensor& x, const at::Tensor& weight);

/// For the backward of a layer: throws Error unsupported when it is itself to be differentiated (create_graph), since a
/// kernel's results are constants to autograd.
void refuse_second_derivative(const char* layer);

}  // namespace comba
