#pragma once

#include <ATen/ATen.h>

#include <initializer_list>

#include "comba/dtype.h"
#include "operators/cuda/launch.h"

/// Tensors as the GPU kernels of the layers take them.
namespace comba {

/// Whether those kernels can take these tensors: on a GPU, fp32, bf16 or fp16, in a build that has the kernels.
/// Undefined ones do not count.
bool suit_gpu_kernels(std::initializer_list<at::Tensor> tensors);

/// Precondition: fp32, bf16 or fp16.
DType float_dtype(const at::Tensor& tensor);

/// The tensor itself where its rows, the last dimension, are dense and lie as cuda::Rows can say; else a dense copy.
at::Tensor with_regular_rows(const at::Tensor& tensor);

/// Of a tensor whose rows are regular; absent for an undefined one.
cuda::ConstRows const_rows(const at::Tensor& tensor);
cuda::Rows mutable_rows(const at::Tensor& tensor);

}  // namespace comba
