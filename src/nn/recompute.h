#pragma once

#include <ATen/ATen.h>

#include <functional>

namespace comba::nn {

/// y = function(x), of which autograd keeps x alone: the backward pass computes the function a second time. The
/// gradients, of x and of every parameter that the function reads, have the same bits as without it.
/// `function` must give the same bits each time, and must live in what it captures: it is called after this returns.
/// x must need a gradient where a parameter does. A second derivative is refused.
at::Tensor recompute_in_backward(const std::function<at::Tensor(const at::Tensor&)>& function, const at::Tensor& x);

}  // namespace comba::nn
