#include "nn/linear.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>

#include "libtorch/fused.h"
#include "nn/int8_linear.h"

namespace comba::nn {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// LibTorch multiplies fp32 matrices with MKL, which keeps to AVX2 on processors that are not Intel's; oneDNN, also in
// LibTorch but without a public function, takes AVX-512 there and was 2.2 times as fast on an EPYC of 2025 (linear
// layers of 128 to 1024 channels, 2048 rows). Below these sizes its set-up costs more than it saves.
constexpr int64_t kFewestRows = 64;
constexpr int64_t kFewestChannels = 16;

const std::optional<c10::OperatorHandle>& onednn_linear() {
  static const auto op = c10::Dispatcher::singleton().findSchema({"mkldnn::_linear_pointwise", ""});
  return op;
}

bool suits_onednn(const at::Tensor& x, const at::Tensor& weight) {
  const int64_t in = weight.size(1);
  return are_cpu_floats({x, weight}) && std::min(in, weight.size(0)) >= kFewestChannels &&
         x.numel() >= kFewestRows * in && onednn_linear().has_value();
}

/// x [R, in], weight [out, in], of any strides -> [R, out]
at::Tensor times_transposed(const at::Tensor& x, const at::Tensor& weight);

class OnednnLinear : public torch::autograd::Function<OnednnLinear> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& weight) {
    context->save_for_backward({x, weight});
    torch::jit::Stack stack = {x, weight, c10::IValue(), "none", c10::List<std::optional<at::Scalar>>(), c10::IValue()};
    onednn_linear()->callBoxed(&stack);
    return stack[0].toTensor();
  }

  static variable_list backward(AutogradContext* context, const variable_list& dy) {
    const variable_list saved = context->get_saved_variables();
    const at::Tensor &x = saved[0], &weight = saved[1];
    const at::Tensor dx = context->needs_input_grad(0) ? times_transposed(dy[0], weight.t()) : at::Tensor();
    const at::Tensor dweight = context->needs_input_grad(1) ? times_transposed(dy[0].t(), x.t()) : at::Tensor();
    return {dx, dweight};
  }
};

at::Tensor times_transposed(const at::Tensor& x, const at::Tensor& weight) {
  return suits_onednn(x, weight) ? OnednnLinear::apply(x, weight) : at::linear(x, weight);
}

}  // namespace

at::Tensor linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  if (x.scalar_type() != weight.scalar_type()) {
    return at::linear(x, weight.to(x.scalar_type()), bias.defined() ? bias.to(x.scalar_type()) : bias);
  }
  if (!suits_onednn(x, weight)) return at::linear(x, weight, bias);
  std::vector<int64_t> sizes = x.sizes().vec();
  sizes.back() = weight.size(0);
  const at::Tensor y = OnednnLinear::apply(x.reshape({-1, weight.size(1)}), weight).view(sizes);
  return bias.defined() ? y + bias : y;
}

at::Tensor Linear::forward(const at::Tensor& x) {
  if (!is_int8()) return linear(x, weight_, bias_);
  const at::Tensor y = int8_linear(x, weight_, scales_);
  return bias_.defined() ? y + bias_.to(y.scalar_type()) : y;
}

void Linear::round_to_int8() {
  if (is_int8()) return;
  const auto [values, scales] = rounded_to_int8(weight_);
  weight_.set_requires_grad(false);
  weight_.set_data(values);
  scales_ = register_buffer("weight_scales", scales);
}

}  // namespace comba::nn
