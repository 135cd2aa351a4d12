#pragma once

#include <ATen/ATen.h>

#include "comba/view.h"

/// Tensors as the views that the library's operators take. The views own nothing: the tensor must outlive them.
namespace comba {

/// An undefined tensor gives a view that is not given. Throws Error, naming the tensor `name`, when it is on another
/// device than the call's, has no dimensions, more than a view can hold, or an element type the library does not know.
ConstView const_view(const char* name, const at::Tensor& tensor, c10::Device device);
View mutable_view(const char* name, const at::Tensor& tensor, c10::Device device);

/// The tensor itself if its last dimension has stride 1, as the operators ask; else a contiguous copy.
at::Tensor with_unit_stride(const at::Tensor& tensor);

}  // namespace comba
