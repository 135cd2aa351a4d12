#pragma once

#include <ATen/ATen.h>

#include <optional>
#include <tuple>

/// short_convolution by its kernels on a GPU: the operators comba::short_convolution_fused and
/// comba::short_convolution_fused_backward there.
namespace comba {

/// Whether the kernels take filters of this width.
bool suits_convolution_kernel(const at::Tensor& weight);

at::Tensor short_convolution_on_cuda(const at::Tensor& x, const at::Tensor& weight,
                                     const std::optional<at::Tensor>& tail,
                                     const std::optional<at::Tensor>& cu_seqlens);

/// (dx, dweight)
std::tuple<at::Tensor, at::Tensor> short_convolution_backward_on_cuda(const at::Tensor& dy, const at::Tensor& x,
                                                                      const at::Tensor& weight,
                                                                      const std::optional<at::Tensor>& tail,
                                                                      const std::optional<at::Tensor>& cu_seqlens);

/// The same into a dx of any strides whose channels are dense; dweight.
at::Tensor short_convolution_backward_into(const at::Tensor& dx, const at::Tensor& dy, const at::Tensor& x,
                                           const at::Tensor& weight, const std::optional<at::Tensor>& tail,
                                           const std::optional<at::Tensor>& cu_seqlens);

/// Advances `tail`, which must be dense and of the dtype of x, in place.
at::Tensor short_convolution_step_on_cuda(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& tail);

}  // namespace comba
