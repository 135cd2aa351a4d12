#include "libtorch/views.h"

#include <algorithm>

#include "base/message.h"

namespace comba {
namespace {

DType dtype_of(const char* name, const at::Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case at::kFloat:
      return DType::f32;
    case at::kBFloat16:
      return DType::bf16;
    case at::kHalf:
      return DType::f16;
    case at::kInt:
      return DType::i32;
    case at::kLong:
      return DType::i64;
    default:
      throw Error(ErrorCode::invalid_argument,
                  concat("[comba] ", name, " must be f32, bf16, f16, i32 or i64; got ", tensor.scalar_type()));
  }
}

template <class Void>
BasicView<Void> make_view(const char* name, const at::Tensor& tensor, c10::Device device, Void* data) {
  using Result = BasicView<Void>;
  require(tensor.dim() >= 1 && tensor.dim() <= Result::kMaxRank, ErrorCode::invalid_argument, "[comba] ", name,
          " must have 1 to ", Result::kMaxRank, " dimensions; got ", tensor.dim());
  require(tensor.device() == device, ErrorCode::invalid_argument, "[comba] ", name, " must be on ", device,
          " as the first input is; got ", tensor.device());
  Result view;
  view.data = data;
  view.dtype = dtype_of(name, tensor);
  view.rank = static_cast<int>(tensor.dim());
  std::copy(tensor.sizes().begin(), tensor.sizes().end(), view.sizes.begin());
  std::copy(tensor.strides().begin(), tensor.strides().end(), view.strides.begin());
  return view;
}

}  // namespace

ConstView const_view(const char* name, const at::Tensor& tensor, c10::Device device) {
  if (!tensor.defined()) return {};
  return make_view<const void>(name, tensor, device, tensor.const_data_ptr());
}

View mutable_view(const char* name, const at::Tensor& tensor, c10::Device device) {
  if (!tensor.defined()) return {};
  return make_view<void>(name, tensor, device, tensor.mutable_data_ptr());
}

at::Tensor with_unit_stride(const at::Tensor& tensor) {
  if (!tensor.defined() || tensor.dim() == 0 || tensor.size(-1) <= 1 || tensor.stride(-1) == 1) return tensor;
  return tensor.contiguous();
}

}  // namespace comba
