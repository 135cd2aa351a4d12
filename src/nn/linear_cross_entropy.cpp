#include "nn/linear_cross_entropy.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>

#include "base/message.h"
#include "libtorch/call_scope.h"
#include "libtorch/fused.h"
#include "libtorch/rows.h"
#include "nn/linear.h"
#include "operators/cross_entropy/cuda/cross_entropy.h"

namespace comba::nn {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// 512 MiB of logits in 16 bits on a GPU, where larger products are no faster; 256 MiB in fp32 on the CPU.
constexpr int64_t kLogitsOnGpu = int64_t{1} << 28;
constexpr int64_t kLogitsOnCpu = int64_t{1} << 26;
constexpr int64_t kColumnMultiple = 8;

/// What the blocks of tokens need besides their own rows.
struct Loss {
  at::Tensor weight;  ///< [vocab, D]  in the dtype of x
  at::Tensor scale;   ///< []  1 / number of targets, in fp32 or double
  bool with_gradients;
};

/// Losses of a block's tokens; with gradients the logits become theirs.  logits [R, vocab], targets [R] -> [R]
at::Tensor losses_on_gpu(const at::Tensor& logits, const at::Tensor& targets, const Loss& loss) {
  at::Tensor losses = at::empty({logits.size(0)}, logits.options().dtype(at::kFloat));
  CallScope scope(logits.device());
  cuda::cross_entropy({
      .rows = logits.size(0),
      .columns = logits.size(1),
      .row_stride = logits.stride(0),
      .dtype = float_dtype(logits),
      .logits = logits.mutable_data_ptr(),
      .targets = targets.const_data_ptr<int64_t>(),
      .scale = loss.with_gradients ? loss.scale.const_data_ptr<float>() : nullptr,
      .losses = losses.mutable_data_ptr<float>(),
      .stream = scope.execution().stream,
  });
  return losses;
}

/// The same in LibTorch's operations.
at::Tensor losses_by_definition(const at::Tensor& logits, const at::Tensor& targets, const Loss& loss) {
  const at::Tensor log_probabilities = at::log_softmax(logits.to(loss.scale.scalar_type()), 1);
  const at::Tensor ignored = targets.eq(cuda::kIgnoredTarget);
  const at::Tensor column = targets.masked_fill(ignored, 0).unsqueeze(1);
  at::Tensor losses = -log_probabilities.gather(1, column).squeeze(1).masked_fill(ignored, 0);
  if (loss.with_gradients) {
    at::Tensor gradient = log_probabilities.exp_();
    gradient.scatter_add_(1, column, at::full_like(column, -1, gradient.options()));
    gradient.mul_(loss.scale * ignored.logical_not().unsqueeze(1));
    at::Tensor(logits).copy_(gradient);
  }
  return losses;
}

/// sum += a^T b, in the dtype of the sum.
void add_product(at::Tensor& sum, const at::Tensor& a, const at::Tensor& b) {
  if (sum.scalar_type() == a.scalar_type()) {
    sum.addmm_(a.t(), b);
  } else if (a.is_cuda()) {
    at::addmm_out(sum, sum, a.t(), b, sum.scalar_type());
  } else {
    sum.addmm_(a.t().to(sum.scalar_type()), b.to(sum.scalar_type()));
  }
}

/// x factor, rounded to the dtype only in the end: a number without dimensions would be rounded to that of x before.
at::Tensor scaled(const at::Tensor& x, const at::Tensor& factor, at::ScalarType dtype) {
  at::Tensor result = at::empty(x.sizes(), x.options().dtype(dtype));
  return at::mul_out(result, x, factor.reshape({1}));
}

class LinearCrossEntropy : public torch::autograd::Function<LinearCrossEntropy> {
 public:
  /// x [R, D], targets [R]
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& weight,
                            const at::Tensor& targets, int64_t tokens_per_block, bool with_gradients) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    const at::ScalarType wide = at::promote_types(x.scalar_type(), at::kFloat);
    const bool on_gpu = suit_gpu_kernels({x});
    // The mean over none is no number: 1 / 0 times the sum 0.
    const Loss loss{.weight = weight.to(x.scalar_type()),
                    .scale = targets.ne(cuda::kIgnoredTarget).sum().to(wide).reciprocal(),
                    .with_gradients = with_gradients};
    const int64_t rows = x.size(0), vocab = weight.size(0);
    const int64_t width = (vocab + kColumnMultiple - 1) / kColumnMultiple * kColumnMultiple;
    const at::Tensor memory = at::empty({std::min(rows, tokens_per_block), width}, x.options());
    const at::Tensor losses = at::empty({rows}, x.options().dtype(wide));
    at::Tensor dx, dweight;
    if (loss.with_gradients) {
      dx = at::empty(x.sizes(), x.options());
      dweight = at::zeros(weight.sizes(), weight.options().dtype(at::promote_types(weight.scalar_type(), at::kFloat)));
    }
    for (int64_t first = 0; first < rows; first += tokens_per_block) {
      const int64_t count = std::min(tokens_per_block, rows - first);
      const at::Tensor block = x.narrow(0, first, count), target = targets.narrow(0, first, count);
      at::Tensor logits = memory.narrow(0, 0, count).narrow(1, 0, vocab);
      at::mm_out(logits, block, loss.weight.t());
      losses.narrow(0, first, count)
          .copy_(on_gpu ? losses_on_gpu(logits, target, loss) : losses_by_definition(logits, target, loss));
      if (!loss.with_gradients) continue;
      at::Tensor of_block = dx.narrow(0, first, count);
      at::mm_out(of_block, logits, loss.weight);
      add_product(dweight, logits, block);
    }
    if (loss.with_gradients) context->save_for_backward({dx, dweight});
    context->saved_data["dtype"] = static_cast<int64_t>(weight.scalar_type());
    return losses.sum() * loss.scale;
  }

  static variable_list backward(AutogradContext* context, const variable_list& d_loss) {
    refuse_second_derivative("linear_cross_entropy");
    const variable_list saved = context->get_saved_variables();
    const auto dtype = static_cast<at::ScalarType>(context->saved_data["dtype"].toInt());
    at::Tensor dx, dweight;
    if (context->needs_input_grad(0)) dx = scaled(saved[0], d_loss[0], saved[0].scalar_type());
    if (context->needs_input_grad(1)) dweight = scaled(saved[1], d_loss[0], dtype);
    return {dx, dweight, at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

}  // namespace

at::Tensor linear_cross_entropy_in_blocks(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& targets,
                                          int64_t tokens_per_block) {
  require(weight.dim() == 2 && x.dim() >= 1 && x.size(-1) == weight.size(1), ErrorCode::invalid_argument,
          "[linear_cross_entropy] weight must be [vocab, D] and x [..., D]; got ", weight.sizes(), " and ", x.sizes());
  require(targets.scalar_type() == at::kLong && targets.sizes() == x.sizes().slice(0, x.dim() - 1),
          ErrorCode::invalid_argument, "[linear_cross_entropy] targets must be [...] i64 as x is [..., D], ", x.sizes(),
          "; got ", targets.sizes(), ' ', targets.scalar_type());
  require(tokens_per_block > 0, ErrorCode::invalid_argument,
          "[linear_cross_entropy] a block must have at least one token; got ", tokens_per_block);
  const bool with_gradients = at::GradMode::is_enabled() && (x.requires_grad() || weight.requires_grad());
  return LinearCrossEntropy::apply(x.reshape({-1, x.size(-1)}), weight, targets.reshape({-1}).contiguous(),
                                   tokens_per_block, with_gradients);
}

at::Tensor linear_cross_entropy(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& targets) {
  const int64_t logits = x.is_cuda() ? kLogitsOnGpu : kLogitsOnCpu, vocab = std::max<int64_t>(weight.size(0), 1);
  if (!x.is_cuda() && targets.numel() * vocab <= logits) {
    const at::Tensor all = nn::linear(x, weight).reshape({-1, weight.size(0)});
    return at::cross_entropy_loss(all.to(at::promote_types(all.scalar_type(), at::kFloat)), targets.reshape({-1}));
  }
  // A multiple of 128 tokens, the height of a tile of the products.
  const int64_t tokens = std::max<int64_t>(logits / vocab / 128 * 128, 128);
  return linear_cross_entropy_in_blocks(x, weight, targets, tokens);
}

}  // namespace comba::nn
