#pragma once

#include <ATen/ATen.h>

/// What the layers with an own CPU kernel have in common. Each also has its definition in LibTorch's operations, which
/// serves every other device and dtype.
namespace comba::nn {

/// Whether a kernel for dense fp32 on the CPU can take these tensors.
bool are_cpu_floats(std::initializer_list<at::Tensor> tensors);

/// For the backward of a layer: throws Error unsupported when it is itself to be differentiated (create_graph), since a
/// kernel's results are constants to autograd.
void refuse_second_derivative(const char* layer);

}  // namespace comba::nn
