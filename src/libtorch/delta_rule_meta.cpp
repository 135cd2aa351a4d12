#include <ATen/ATen.h>

#include "base/message.h"
#include "libtorch/delta_rule_call.h"
#include "libtorch/delta_rule_kernels.h"

namespace comba {
namespace {

using torch::jit::pop;
using torch::jit::push;
using torch::jit::Stack;

// A tensor on a device without data sends the whole call here: its neighbours that have data would get results that
// nobody computed.
void require_one_device(const DeltaRuleTensors& x, const at::Tensor& state = {}) {
  const c10::Device device = x.q.device();
  const auto require_same = [&](const at::Tensor& tensor) {
    if (!tensor.defined()) return;
    require(tensor.device() == device, ErrorCode::invalid_argument,
            "[delta_rule] all tensors must be on one device; got q on ", device, " and another on ", tensor.device());
  };
  for (const at::Tensor& tensor : to_list(x)) require_same(tensor);
  require_same(state);
}

// Sizes may be symbols here: torch.compile traces these kernels for shapes it does not know yet.
at::Tensor empty_output(const DeltaRuleTensors& x) { return at::empty_symint(x.v.sym_sizes(), x.q.options()); }

}  // namespace

void delta_rule_meta(Stack& stack) {
  pop(stack);  // save_states
  pop(stack);  // check_borders
  const bool output_final_state = pop(stack).toBool();
  pop_options(stack);
  const DeltaRuleTensors x = pop_inputs(stack);
  require_ranks(x);
  require_one_device(x);
  const auto state_options = x.q.options().dtype(at::kFloat);
  at::Tensor final_state = at::empty({0}, state_options);
  if (output_final_state) {
    const c10::SymInt num_sequences = x.cu_seqlens.defined() ? x.cu_seqlens.sym_size(0) - 1 : x.q.sym_size(0);
    final_state = at::empty_symint({num_sequences, x.v.sym_size(2), x.q.sym_size(3), x.v.sym_size(3)}, state_options);
  }
  push(stack, empty_output(x), final_state);
}

void delta_rule_backward_meta(Stack& stack) {
  const auto mask = pop(stack).to<std::vector<bool>>();
  pop_options(stack);
  const auto inputs = to_list(pop_inputs(stack));
  pop(stack);  // d_final_state
  const at::Tensor d_o = pop(stack).toTensor();
  std::vector<at::Tensor> gradients;
  for (std::size_t i = 0; i < kNumGradients; ++i) {
    const bool wanted = mask[i] && inputs[i].defined();
    gradients.push_back(wanted ? at::empty_symint(inputs[i].sym_sizes(), inputs[i].options())
                               : at::empty({0}, d_o.options()));
  }
  push(stack, gradients);
}

void delta_rule_decode_step_meta(Stack& stack) {
  pop_options(stack);
  pop_rows(stack);
  const at::Tensor state = pop(stack).toTensor();
  const DeltaRuleTensors x = pop_inputs(stack);
  require_ranks(x);
  require_one_device(x, state);
  push(stack, empty_output(x));
}

}  // namespace comba
