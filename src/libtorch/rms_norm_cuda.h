#pragma once

#include <ATen/ATen.h>

#include <optional>
#include <string_view>
#include <tuple>

#include "operators/rms_norm/rms_norm.h"

/// rms_norm by its kernels on a GPU: the operators comba::rms_norm_fused and comba::rms_norm_fused_backward there.
namespace comba {

/// Throws Error invalid_argument for another name than sigmoid or silu.
GateFunction gate_function_named(std::string_view name);

/// (y, inverse_rms)
std::tuple<at::Tensor, at::Tensor> rms_norm_on_cuda(const at::Tensor& x, const at::Tensor& weight,
                                                    const std::optional<at::Tensor>& gate,
                                                    std::string_view gate_function, double eps);

/// (dx, dweight, dgate)
std::tuple<at::Tensor, at::Tensor, at::Tensor> rms_norm_backward_on_cuda(const at::Tensor& dy, const at::Tensor& x,
                                                                         const at::Tensor& weight,
                                                                         const std::optional<at::Tensor>& gate,
                                                                         const at::Tensor& inverse_rms,
                                                                         std::string_view gate_function);

}  // namespace comba
