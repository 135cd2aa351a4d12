#include "libtorch/short_convolution_cuda.h"

#include <algorithm>

#include "libtorch/call_scope.h"
#include "libtorch/positions.h"
#include "libtorch/rows.h"
#include "libtorch/views.h"
#include "operators/short_convolution/cuda/short_convolution.h"

namespace comba {
namespace {

using MaybeTensor = std::optional<at::Tensor>;

cuda::ShortConvolutionSizes sizes_of(const at::Tensor& x, const at::Tensor& weight) {
  return {x.size(0), x.size(1), x.size(2), weight.size(2)};
}

cuda::ConstTokens const_tokens(const at::Tensor& x) { return {x.const_data_ptr(), x.stride(0), x.stride(1)}; }
cuda::Tokens mutable_tokens(const at::Tensor& x) { return {x.mutable_data_ptr(), x.stride(0), x.stride(1)}; }

/// The tensors of a call, dense where the kernels ask for it.
struct Inputs {
  at::Tensor x, weight, tail, cu_seqlens;

  Inputs(const at::Tensor& x, const at::Tensor& weight, const MaybeTensor& tail, const MaybeTensor& cu_seqlens)
      : x(with_unit_stride(x)),
        weight(weight.contiguous()),
        tail(tail && weight.size(2) > 1 ? tail->to(x.scalar_type()).contiguous() : at::Tensor()),
        cu_seqlens(cu_seqlens ? cu_seqlens->to(x.device()).contiguous() : at::Tensor()) {
    if (cu_seqlens && cu_seqlens->is_cpu()) sequence_borders(*cu_seqlens, x.size(1));  // throws unless they are borders
  }

  cuda::ShortConvolutionForward forward(CUstream_st* stream) const {
    return {
        .sizes = sizes_of(x, weight),
        .dtype = float_dtype(x),
        .weight_dtype = float_dtype(weight),
        .x = const_tokens(x),
        .weight = weight.const_data_ptr(),
        .tail = tail.defined() ? tail.const_data_ptr() : nullptr,
        .cu_seqlens = cu_seqlens.defined() ? cu_seqlens.const_data_ptr() : nullptr,
        .cu_seqlens_are_i64 = cu_seqlens.defined() && cu_seqlens.scalar_type() == at::kLong,
        .num_sequences = cu_seqlens.defined() ? std::max<int64_t>(cu_seqlens.numel() - 1, 0) : 0,
        .y = {},
        .stream = stream,
    };
  }
};

}  // namespace

bool suits_convolution_kernel(const at::Tensor& weight) { return weight.sym_size(2) <= cuda::kLargestConvolutionWidth; }

at::Tensor short_convolution_on_cuda(const at::Tensor& x, const at::Tensor& weight, const MaybeTensor& tail,
                                     const MaybeTensor& cu_seqlens) {
  const Inputs inputs(x, weight, tail, cu_seqlens);
  at::Tensor y = at::empty(x.sizes(), x.options());
  CallScope scope(x.device());
  cuda::ShortConvolutionForward args = inputs.forward(scope.execution().stream);
  args.y = mutable_tokens(y);
  cuda::short_convolution_forward(args);
  return y;
}

at::Tensor short_convolution_backward_into(const at::Tensor& dx, const at::Tensor& dy, const at::Tensor& x,
                                           const at::Tensor& weight, const MaybeTensor& tail,
                                           const MaybeTensor& cu_seqlens) {
  const Inputs inputs(x, weight, tail, cu_seqlens);
  const at::Tensor dense_dy = with_unit_stride(dy);
  at::Tensor dweight = at::empty(weight.sizes(), weight.options());
  CallScope scope(x.device());
  const int64_t parts = cuda::short_convolution_num_parts(sizes_of(x, weight));
  const at::Tensor partial_sums = at::empty({parts, weight.numel()}, weight.options().dtype(at::kFloat));
  cuda::short_convolution_backward({
      .forward = inputs.forward(scope.execution().stream),
      .dy = const_tokens(dense_dy),
      .dx = mutable_tokens(dx),
      .dweight = dweight.mutable_data_ptr(),
      .partial_sums = partial_sums.mutable_data_ptr<float>(),
  });
  return dweight;
}

std::tuple<at::Tensor, at::Tensor> short_convolution_backward_on_cuda(const at::Tensor& dy, const at::Tensor& x,
                                                                      const at::Tensor& weight, const MaybeTensor& tail,
                                                                      const MaybeTensor& cu_seqlens) {
  const at::Tensor dx = at::empty(x.sizes(), x.options());
  return {dx, short_convolution_backward_into(dx, dy, x, weight, tail, cu_seqlens)};
}

at::Tensor short_convolution_step_on_cuda(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& tail) {
  const at::Tensor dense_x = with_unit_stride(x), dense_weight = weight.contiguous();
  at::Tensor y = at::empty(x.sizes(), x.options());
  CallScope scope(x.device());
  cuda::short_convolution_step({
      .sizes = sizes_of(x, weight),
      .dtype = float_dtype(x),
      .weight_dtype = float_dtype(weight),
      .x = const_tokens(dense_x),
      .weight = dense_weight.const_data_ptr(),
      .tail = tail.numel() > 0 ? tail.mutable_data_ptr() : nullptr,
      .y = mutable_tokens(y),
      .stream = scope.execution().stream,
  });
  return y;
}

}  // namespace comba
