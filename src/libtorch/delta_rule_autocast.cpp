#include <ATen/autocast_mode.h>
#include <ATen/core/dispatch/Dispatcher.h>

#include <array>

#include "libtorch/delta_rule_kernels.h"

namespace comba {
namespace {

/// Places in the schema of the inputs that share one dtype: q, k, v and p. Gates may have any, states are fp32.
constexpr std::array<std::size_t, 4> kCast = {0, 1, 2, 3};

}  // namespace

void delta_rule_autocast(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::autocast_dispatch_keyset);
  c10::IValue* arguments = stack->data() + stack->size() - op.schema().arguments().size();
  const c10::DeviceType device = arguments[0].toTensor().device().type();
  const at::ScalarType dtype = at::autocast::get_autocast_dtype(device);
  for (const std::size_t place : kCast) {
    if (arguments[place].isTensor()) {
      arguments[place] = at::autocast::cached_cast(dtype, arguments[place].toTensor(), device);
    }
  }
  op.callBoxed(stack);
}

}  // namespace comba
