#include "nn/joined_linear.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <torch/csrc/autograd/custom_function.h>

#include "libtorch/columns.h"
#include "libtorch/fused.h"
#include "nn/linear.h"

namespace comba::nn {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Matrix products want rows that begin at multiples of 16 bytes.
constexpr int64_t kRowMultiple = 8;

std::vector<int64_t> heights_of(at::TensorList weights) {
  std::vector<int64_t> heights;
  for (const at::Tensor& weight : weights) heights.push_back(weight.size(0));
  return heights;
}

/// x W^T  [R, in], [out, in] -> [R, out], the first columns of rows that are as long as products want them
at::Tensor product_in_even_rows(const at::Tensor& x, const at::Tensor& weight) {
  const int64_t out = weight.size(0), width = (out + kRowMultiple - 1) / kRowMultiple * kRowMultiple;
  at::Tensor y = at::empty({x.size(0), width}, x.options()).narrow(1, 0, out);
  at::mm_out(y, x, weight.t());
  return y;
}

/// dy^T x in the dtype of the weights, which LibTorch's product for a GPU gives at once.
at::Tensor weight_gradient(const at::Tensor& dy, const at::Tensor& x, at::ScalarType dtype) {
  if (dtype == x.scalar_type()) return at::mm(dy.t(), x);
  if (x.is_cuda() && dtype == at::kFloat) return at::mm(dy.t(), x, dtype);
  return at::mm(dy.t(), x).to(dtype);
}

/// Precondition: the weights are neighbours.
class JoinedLinear : public torch::autograd::Function<JoinedLinear> {
 public:
  static variable_list forward(AutogradContext* context, const at::Tensor& x, at::TensorList weights) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    variable_list saved = {x};
    saved.insert(saved.end(), weights.begin(), weights.end());
    context->save_for_backward(saved);
    context->set_materialize_grads(false);
    const at::Tensor weight = joined_rows(weights).to(x.scalar_type());
    const at::Tensor y = product_in_even_rows(x.reshape({-1, weight.size(1)}), weight);
    variable_list outputs = cut_columns(y, heights_of(weights));
    std::vector<int64_t> sizes = x.sizes().vec();
    for (at::Tensor& output : outputs) {
      sizes.back() = output.size(-1);
      output = output.view(sizes);
    }
    return outputs;
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    refuse_second_derivative("joined_linear");
    const variable_list saved = context->get_saved_variables();
    const at::Tensor& x = saved[0];
    const at::TensorList weights(saved.data() + 1, saved.size() - 1);
    const std::vector<int64_t> heights = heights_of(weights);
    const at::Tensor joined = joined_rows(weights);
    const at::Tensor dy = gather_columns(gradients, heights).reshape({-1, joined.size(0)});
    variable_list result(saved.size());
    if (context->needs_input_grad(0)) result[0] = at::mm(dy, joined.to(x.scalar_type())).view(x.sizes());
    bool trains = false;
    for (std::size_t i = 1; i < saved.size(); ++i) trains = trains || context->needs_input_grad(i);
    if (!trains) return result;
    const at::Tensor dweight = weight_gradient(dy, x.reshape({-1, x.size(-1)}), joined.scalar_type());
    const std::vector<at::Tensor> of_weights = cut_rows(dweight, heights);
    std::copy(of_weights.begin(), of_weights.end(), result.begin() + 1);
    return result;
  }
};

std::vector<at::Tensor> one_by_one(const at::Tensor& x, at::TensorList weights) {
  std::vector<at::Tensor> results;
  for (const at::Tensor& weight : weights) results.push_back(nn::linear(x, weight));
  return results;
}

}  // namespace

std::vector<at::Tensor> joined_linear(const at::Tensor& x, at::TensorList weights) {
  const bool are_neighbours = weights.size() > 1 && joined_rows(weights).defined() && x.numel() > 0;
  return are_neighbours ? JoinedLinear::apply(x, weights) : one_by_one(x, weights);
}

std::vector<at::Tensor> linear_each(const at::Tensor& x, at::TensorList weights) {
  return x.is_cuda() ? joined_linear(x, weights) : one_by_one(x, weights);
}

}  // namespace comba::nn
