#include "nn/recompute.h"

#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/utils.h>
#include <torch/csrc/autograd/saved_variable.h>

#include <utility>

#include "libtorch/fused.h"

namespace comba::nn {
namespace {

using torch::autograd::variable_list;
using Function = std::function<at::Tensor(const at::Tensor&)>;

/// The place of the function in autograd's graph.
class Recompute : public torch::autograd::Node {
 public:
  Recompute(Function function, const at::Tensor& x)
      : Node(torch::autograd::collect_next_edges(x)), function_(std::move(function)), x_(x, /*is_output=*/false) {}

  variable_list apply(variable_list&& dy) override {
    refuse_second_derivative("recompute_in_backward");
    const at::Tensor x = x_.unpack().detach().requires_grad_();
    at::Tensor y;
    {
      const at::AutoGradMode enabled(true);
      y = function_(x);
    }
    torch::autograd::backward({y}, dy);
    return {x.grad()};
  }

  void release_variables() override {
    x_.reset_data();
    function_ = nullptr;
  }

 private:
  Function function_;
  torch::autograd::SavedVariable x_;
};

}  // namespace

at::Tensor recompute_in_backward(const Function& function, const at::Tensor& x) {
  if (!at::GradMode::is_enabled() || !x.requires_grad()) return function(x);
  const auto node = std::shared_ptr<Recompute>(new Recompute(function, x), torch::autograd::deleteNode);
  at::Tensor y;
  {
    const at::NoGradGuard no_graph;
    y = function(x);
  }
  torch::autograd::set_history(y, node);
  return y;
}

}  // namespace comba::nn
