#include "libtorch/short_convolution.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <algorithm>

#include "base/message.h"
#include "comba/parallel.h"
#include "libtorch/error_translation.h"
#include "libtorch/fused.h"
#include "libtorch/positions.h"
#include "libtorch/rows.h"
#include "libtorch/short_convolution_cuda.h"
#include "libtorch/threads.h"
#include "operators/short_convolution/short_convolution.h"

namespace comba {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using MaybeTensor = std::optional<at::Tensor>;

void require_shapes(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& tail,
                    const at::Tensor& cu_seqlens) {
  require(x.dim() == 3 && weight.dim() == 3, ErrorCode::invalid_argument,
          "[short_convolution] x must be [B, T, C] and weight [C, 1, W]; got ", x.dim(), " and ", weight.dim(),
          " dimensions");
  require(weight.sym_size(0) == x.sym_size(2) && weight.sym_size(1) == 1 && weight.sym_size(2) >= 1,
          ErrorCode::invalid_argument, "[short_convolution] weight must be [C, 1, W], with C = ", x.sym_size(2),
          " as x has; got ", weight.sym_sizes());
  require(!tail.defined() || !cu_seqlens.defined(), ErrorCode::invalid_argument,
          "[short_convolution] tail and cu_seqlens exclude each other; got both");
  require(!cu_seqlens.defined() || x.sym_size(0) == 1, ErrorCode::invalid_argument,
          "[short_convolution] cu_seqlens needs B = 1; got B = ", x.sym_size(0));
  require(!tail.defined() || (tail.dim() == 3 && tail.sym_size(0) == x.sym_size(0) &&
                              tail.sym_size(1) == weight.sym_size(2) - 1 && tail.sym_size(2) == x.sym_size(2)),
          ErrorCode::invalid_argument, "[short_convolution] tail must be [B, W - 1, C]; got ",
          tail.defined() ? tail.sym_sizes() : c10::SymIntArrayRef(), " beside x ", x.sym_sizes());
}

at::Tensor definition(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& tail,
                      const at::Tensor& cu_seqlens) {
  const c10::SymInt num_tokens = x.sym_size(1);
  const int64_t width = weight.size(2);
  const at::Tensor history =
      tail.defined() ? tail : at::zeros_symint({x.sym_size(0), width - 1, x.sym_size(2)}, x.options());
  const at::Tensor extended = at::cat({history, x}, /*dim=*/1);
  at::Tensor sum = at::zeros_like(x);
  for (int64_t j = 0; j < width; ++j) {
    at::Tensor input = extended.narrow_symint(1, j, num_tokens);
    if (cu_seqlens.defined()) {
      const at::Tensor inside = positions_in_sequences(cu_seqlens, x.size(1)) >= width - 1 - j;
      input = at::where(inside.view({1, -1, 1}), input, at::zeros({}, input.options()));
    }
    sum = sum + input * weight.select(2, j).select(1, 0);
  }
  return at::silu(sum);
}

/// [C, 1, W] -> [W, C]: a filter tap of neighbouring channels side by side.
at::Tensor by_tap(const at::Tensor& weight) { return weight.squeeze(1).t().contiguous(); }

/// [B, T, C] with the channels side by side. Where the tokens are, as PyTorch's convolutions have it, tiles are turned
/// in a buffer: memory is read and written by runs, not by single numbers of as many pages.
at::Tensor with_dense_channels(const at::Tensor& x) {
  if (x.is_contiguous() || x.stride(1) != 1) return x.contiguous();
  constexpr int64_t kTokens = 128, kChannels = 16;
  at::Tensor y = at::empty(x.sizes(), x.options());
  const float* source = x.const_data_ptr<float>();
  float* target = y.mutable_data_ptr<float>();
  const int64_t tokens = x.size(1), channels = x.size(2), row_stride = x.stride(0), channel_stride = x.stride(2);
  const int64_t blocks = (tokens + kTokens - 1) / kTokens;
  parallel_for(x.size(0) * blocks, [&](int64_t first, int64_t last) {
    float tile[kTokens][kChannels];
    for (int64_t i = first; i < last; ++i) {
      const int64_t row = i / blocks, begin = i % blocks * kTokens, count = std::min(kTokens, tokens - begin);
      for (int64_t channel = 0; channel < channels; channel += kChannels) {
        const int64_t width = std::min(kChannels, channels - channel);
        for (int64_t c = 0; c < width; ++c) {
          const float* from = source + row * row_stride + (channel + c) * channel_stride + begin;
          for (int64_t t = 0; t < count; ++t) tile[t][c] = from[t];
        }
        float* to = target + (row * tokens + begin) * channels + channel;
        for (int64_t t = 0; t < count; ++t) std::copy_n(tile[t], width, to + t * channels);
      }
    }
  });
  return y;
}

const float* data_of(const at::Tensor& tensor) { return tensor.defined() ? tensor.const_data_ptr<float>() : nullptr; }

// The kernels as operators of their own, of any strides: for fp32 tensors and W = 4 on the CPU, for most on a GPU.
at::Tensor forward_on_cpu(const at::Tensor& x, const at::Tensor& weight, const MaybeTensor& tail,
                          const MaybeTensor& cu_seqlens) {
  use_torch_threads_once();
  const at::Tensor dense_x = with_dense_channels(x);
  const at::Tensor taps = by_tap(weight);
  const at::Tensor dense_tail = tail ? tail->contiguous() : at::Tensor();
  at::Tensor y = at::empty(x.sizes(), x.options());
  const ShortConvolutionForward args{
      .tokens = x.size(1),
      .channels = x.size(2),
      .x = data_of(dense_x),
      .weight = data_of(taps),
      .tail = data_of(dense_tail),
      .y = y.mutable_data_ptr<float>(),
  };
  const auto borders = sequence_borders(cu_seqlens.value_or(at::Tensor()), x.size(1));
  short_convolution_forward(args, cut_into_pieces(x.size(0), x.size(1), borders));
  return y;
}

std::tuple<at::Tensor, at::Tensor> backward_on_cpu(const at::Tensor& dy, const at::Tensor& x, const at::Tensor& weight,
                                                   const MaybeTensor& tail, const MaybeTensor& cu_seqlens) {
  use_torch_threads_once();
  const auto borders = sequence_borders(cu_seqlens.value_or(at::Tensor()), x.size(1));
  const auto pieces = cut_into_pieces(x.size(0), x.size(1), borders);
  const at::Tensor dense_dy = with_dense_channels(dy), dense_x = with_dense_channels(x);
  const at::Tensor taps = by_tap(weight);
  const at::Tensor dense_tail = tail ? tail->contiguous() : at::Tensor();
  const at::Tensor dx = at::empty(x.sizes(), x.options());
  const at::Tensor dtaps = at::empty({static_cast<int64_t>(pieces.size()), taps.size(0), taps.size(1)}, x.options());
  const ShortConvolutionBackward args{
      .tokens = x.size(1),
      .channels = x.size(2),
      .dy = data_of(dense_dy),
      .x = data_of(dense_x),
      .weight = data_of(taps),
      .tail = data_of(dense_tail),
      .dx = dx.mutable_data_ptr<float>(),
      .dweight = dtaps.mutable_data_ptr<float>(),
  };
  short_convolution_backward(args, pieces);
  return {dx, dtaps.sum(0).t().contiguous().unsqueeze(1)};
}

at::Tensor forward_of_shapes(const at::Tensor& x, const at::Tensor&, const MaybeTensor&, const MaybeTensor&) {
  return at::empty_symint(x.sym_sizes(), x.options());
}

std::tuple<at::Tensor, at::Tensor> backward_of_shapes(const at::Tensor&, const at::Tensor& x, const at::Tensor& weight,
                                                      const MaybeTensor&, const MaybeTensor&) {
  return {at::empty_symint(x.sym_sizes(), x.options()), at::empty_symint(weight.sym_sizes(), weight.options())};
}

at::Tensor call_forward(const at::Tensor& x, const at::Tensor& weight, const MaybeTensor& tail,
                        const MaybeTensor& cu_seqlens) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("comba::short_convolution_fused", "")
                             .typed<decltype(forward_on_cpu)>();
  return op.call(x, weight, tail, cu_seqlens);
}

std::tuple<at::Tensor, at::Tensor> call_backward(const at::Tensor& dy, const at::Tensor& x, const at::Tensor& weight,
                                                 const MaybeTensor& tail, const MaybeTensor& cu_seqlens) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("comba::short_convolution_fused_backward", "")
                             .typed<decltype(backward_on_cpu)>();
  return op.call(dy, x, weight, tail, cu_seqlens);
}

class FusedShortConvolution : public torch::autograd::Function<FusedShortConvolution> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& weight,
                            const MaybeTensor& tail, const MaybeTensor& cu_seqlens) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    context->save_for_backward({x, weight, tail.value_or(at::Tensor()), cu_seqlens.value_or(at::Tensor())});
    return call_forward(x, weight, tail, cu_seqlens);
  }

  static variable_list backward(AutogradContext* context, const variable_list& dy) {
    refuse_second_derivative("short_convolution");
    const variable_list saved = context->get_saved_variables();
    const auto given = [&](size_t i) { return saved[i].defined() ? MaybeTensor(saved[i]) : std::nullopt; };
    const auto [dx, dweight] = call_backward(dy[0], saved[0], saved[1], given(2), given(3));
    return {dx, dweight, at::Tensor(), at::Tensor()};
  }
};

at::Tensor with_autograd(const at::Tensor& x, const at::Tensor& weight, const MaybeTensor& tail,
                         const MaybeTensor& cu_seqlens) {
  return FusedShortConvolution::apply(x, weight, tail, cu_seqlens);
}

at::Tensor from_dispatcher(const at::Tensor& x, const at::Tensor& weight, const MaybeTensor& tail,
                           const MaybeTensor& cu_seqlens) {
  return translated(
      [&] { return short_convolution(x, weight, tail.value_or(at::Tensor()), cu_seqlens.value_or(at::Tensor())); });
}

TORCH_LIBRARY_FRAGMENT(comba, library) {
  const std::string inputs = "Tensor x, Tensor weight, Tensor? tail=None, Tensor? cu_seqlens=None) -> ";
  library.def(("short_convolution(" + inputs + "Tensor").c_str(), TORCH_FN(from_dispatcher));
  library.def(("short_convolution_fused(" + inputs + "Tensor").c_str());
  library.def(("short_convolution_fused_backward(Tensor dy, " + inputs + "(Tensor dx, Tensor dweight)").c_str());
}

TORCH_LIBRARY_IMPL(comba, CPU, library) {
  library.impl("short_convolution_fused", TORCH_FN(forward_on_cpu));
  library.impl("short_convolution_fused_backward", TORCH_FN(backward_on_cpu));
}

TORCH_LIBRARY_IMPL(comba, CUDA, library) {
  library.impl("short_convolution_fused", TORCH_FN(short_convolution_on_cuda));
  library.impl("short_convolution_fused_backward", TORCH_FN(short_convolution_backward_on_cuda));
}

TORCH_LIBRARY_IMPL(comba, Meta, library) {
  library.impl("short_convolution_fused", TORCH_FN(forward_of_shapes));
  library.impl("short_convolution_fused_backward", TORCH_FN(backward_of_shapes));
}

TORCH_LIBRARY_IMPL(comba, Autograd, library) {
  library.impl("short_convolution_fused", TORCH_FN(with_autograd));
  library.impl("short_convolution_fused_backward", torch::autograd::autogradNotImplementedFallback());
}

}  // namespace

at::Tensor short_convolution(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& tail,
                             const at::Tensor& cu_seqlens) {
  require_shapes(x, weight, tail, cu_seqlens);
  const auto given = [](const at::Tensor& tensor) { return tensor.defined() ? MaybeTensor(tensor) : std::nullopt; };
  // The caller may overwrite the tail, and backward would still read it.
  const auto kept_tail = [&] {
    return tail.defined() && at::GradMode::is_enabled() ? MaybeTensor(tail.clone()) : given(tail);
  };
  if (suit_gpu_kernels({x, weight, tail}) && suits_convolution_kernel(weight)) {
    return call_forward(x, weight, kept_tail(), given(cu_seqlens));
  }
  if (is_computed_in_floats(x, weight)) {
    const at::Tensor wide_tail = tail.defined() ? tail.to(at::kFloat) : tail;
    return short_convolution(x.to(at::kFloat), weight.to(at::kFloat), wide_tail, cu_seqlens).to(x.scalar_type());
  }
  if (weight.sym_size(2) != kShortConvolutionWidth || !are_cpu_floats({x, weight, tail})) {
    return definition(x, weight, tail, cu_seqlens);
  }
  return call_forward(x, weight, kept_tail(), given(cu_seqlens));
}

at::Tensor short_convolution_step(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& tail) {
  require_shapes(x, weight, tail, {});
  constexpr int64_t kMostTokensOneByOne = 16;
  const at::NoGradGuard no_grad;
  if (x.size(1) <= kMostTokensOneByOne && suit_gpu_kernels({x, weight, tail}) && suits_convolution_kernel(weight) &&
      tail.is_contiguous() && tail.scalar_type() == x.scalar_type()) {
    return short_convolution_step_on_cuda(x, weight, tail);
  }
  at::Tensor y = short_convolution(x, weight, tail);
  const int64_t width = tail.size(1), tokens = x.size(1);
  tail.copy_(tokens >= width ? x.narrow(1, tokens - width, width) : at::cat({tail, x}, 1).narrow(1, tokens, width));
  return y;
}

}  // namespace comba
