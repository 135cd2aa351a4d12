#include "libtorch/rows.h"

#include <algorithm>
#include <optional>

namespace comba {
namespace {

struct RowStrides {
  std::int64_t inner = 1, outer_stride = 0, inner_stride = 0;
};

/// Absent where the tensor's rows lie in no such order.
std::optional<RowStrides> row_strides(const at::Tensor& x) {
  const std::int64_t dims = x.dim();
  if (x.size(-1) > 1 && x.stride(-1) != 1) return std::nullopt;
  if (dims < 2) return RowStrides{1, x.size(-1), x.size(-1)};
  RowStrides strides{x.size(-2), 0, x.stride(-2)};
  if (strides.inner > 1 && strides.inner_stride == 0) return std::nullopt;
  // From the inside out: every dimension before the last two has to go on where the one behind it ends.
  std::int64_t expected = 0, stride = 0;
  for (std::int64_t i = dims - 3; i >= 0; --i) {
    if (x.size(i) == 1) continue;
    if (x.stride(i) == 0) return std::nullopt;  // one row for many
    if (expected == 0) {
      stride = x.stride(i);
    } else if (x.stride(i) != expected) {
      return std::nullopt;
    }
    expected = x.stride(i) * x.size(i);
  }
  strides.outer_stride = stride;
  if (strides.inner == 1) {
    const std::int64_t only = stride == 0 ? x.size(-1) : stride;
    return RowStrides{1, only, only};
  }
  if (stride == 0 || stride == strides.inner * strides.inner_stride) {
    return RowStrides{1, strides.inner_stride, strides.inner_stride};
  }
  return strides;
}

}  // namespace

bool suit_gpu_kernels(std::initializer_list<at::Tensor> tensors) {
  return cuda::has_layer_kernels() && std::all_of(tensors.begin(), tensors.end(), [](const at::Tensor& tensor) {
           if (!tensor.defined()) return true;
           const at::ScalarType dtype = tensor.scalar_type();
           return tensor.is_cuda() && (dtype == at::kFloat || dtype == at::kBFloat16 || dtype == at::kHalf);
         });
}

DType float_dtype(const at::Tensor& tensor) {
  if (tensor.scalar_type() == at::kBFloat16) return DType::bf16;
  return tensor.scalar_type() == at::kHalf ? DType::f16 : DType::f32;
}

at::Tensor with_regular_rows(const at::Tensor& tensor) {
  return !tensor.defined() || tensor.numel() == 0 || row_strides(tensor) ? tensor : tensor.contiguous();
}

cuda::ConstRows const_rows(const at::Tensor& tensor) {
  if (!tensor.defined() || tensor.numel() == 0) return {};
  const RowStrides strides = row_strides(tensor).value();
  return {tensor.const_data_ptr(), strides.inner, strides.outer_stride, strides.inner_stride};
}

cuda::Rows mutable_rows(const at::Tensor& tensor) {
  if (!tensor.defined() || tensor.numel() == 0) return {};
  const RowStrides strides = row_strides(tensor).value();
  return {tensor.mutable_data_ptr(), strides.inner, strides.outer_stride, strides.inner_stride};
}

}  // namespace comba
