#include "gpu_calls.h"

#include <ATen/ATen.h>
#include <dlfcn.h>

#include <cmath>

#include "libtorch/call_scope.h"
#include "libtorch/delta_rule_call.h"
#include "libtorch/views.h"
#include "runtime/cuda_check.h"

namespace comba::benchmarks {
namespace {

/// Gates as a model has them at initialisation.
void set_gates(const GpuCase& x, const at::TensorOptions& f32, DeltaRuleTensors& in) {
  in.A_log = (16 * at::rand({x.HV}, f32)).clamp_min(1e-4).log();
  const at::Tensor dt = at::exp(std::log(1e-3) + std::log(100.0) * at::rand({x.HV}, f32));
  in.dt_bias = dt + at::log(-at::expm1(-dt));
}

/// Comba with b and d, which Gated DeltaNet has not.
DeltaRuleTensors random_inputs(const GpuCase& x, c10::Device device) {
  const auto f32 = at::TensorOptions(device), bf16 = f32.dtype(at::kBFloat16);
  DeltaRuleTensors in;
  in.q = at::randn({x.B, x.T, x.H, x.K}, bf16);
  in.k = at::randn({x.B, x.T, x.H, x.K}, bf16);
  in.v = at::randn({x.B, x.T, x.HV, x.V}, bf16);
  in.beta_logit = at::randn({x.B, x.T, x.HV}, bf16);
  in.a = at::randn({x.B, x.T, x.HV}, bf16);
  set_gates(x, f32, in);
  if (x.rule == Rule::comba) {
    in.b = at::randn({x.H}, f32).sigmoid();
    in.d = at::full({x.H}, 0.02, f32);
  }
  if (!x.lengths.empty()) {
    const at::Tensor ends = at::tensor(x.lengths).cumsum(0);
    in.cu_seqlens = at::cat({at::zeros({1}, at::kLong), ends}).to(device, at::kInt);
  }
  return in;
}

/// Scratch memory of a call, which must outlive it.
at::Tensor scratch(std::int64_t bytes, c10::Device device) {
  return at::empty({bytes}, at::TensorOptions(device).dtype(at::kByte));
}
Workspace workspace(const at::Tensor& memory) { return {memory.mutable_data_ptr(), memory.numel()}; }

GpuCall forward_call(const DeltaRuleTensors& in, Rule rule, c10::Device device, const Execution& execution) {
  const at::Tensor o = at::empty_like(in.v);
  const DeltaRuleForward args = {.options = {.rule = rule},
                                 .inputs = const_views(in, device),
                                 .o = mutable_view("o", o, device),
                                 .execution = execution};
  const at::Tensor memory = scratch(workspace_bytes(args), device);
  return [=] {
    static_cast<void>(in), static_cast<void>(o);  // the call owns its tensors
    delta_rule_forward(args, workspace(memory));
  };
}

GpuCall backward_call(const DeltaRuleTensors& in, Rule rule, c10::Device device, const Execution& execution) {
  const at::Tensor d_o = at::randn_like(in.v);
  std::vector<at::Tensor> gradients;
  const auto gradient = [&](const char* name, const at::Tensor& input) {
    if (!input.defined()) return View();
    return mutable_view(name, gradients.emplace_back(at::empty_like(input)), device);
  };
  DeltaRuleBackward args = {.options = {.rule = rule}, .inputs = const_views(in, device)};
  args.do_ = const_view("do", d_o, device);
  args.dq = gradient("dq", in.q);
  args.dk = gradient("dk", in.k);
  args.dv = gradient("dv", in.v);
  args.db = gradient("db", in.b);
  args.dd = gradient("dd", in.d);
  args.dbeta_logit = gradient("dbeta_logit", in.beta_logit);
  args.da = gradient("da", in.a);
  args.dA_log = gradient("dA_log", in.A_log);
  args.ddt_bias = gradient("ddt_bias", in.dt_bias);
  args.execution = execution;
  const at::Tensor memory = scratch(workspace_bytes(args), device);
  return [=] {
    static_cast<void>(in), static_cast<void>(d_o), static_cast<void>(gradients);
    delta_rule_backward(args, workspace(memory));
  };
}

GpuCall decode_call(const DeltaRuleTensors& in, const GpuCase& x, c10::Device device, const Execution& execution) {
  const auto dtype = x.state == DType::f32 ? at::kFloat : at::kBFloat16;
  const at::Tensor o = at::empty_like(in.v);
  const at::Tensor state = (0.1 * at::randn({x.B, x.HV, x.K, x.V}, at::TensorOptions(device))).to(dtype);
  const DeltaRuleDecode args = {.options = {.rule = x.rule},
                                .inputs = const_views(in, device),
                                .state = mutable_view("state", state, device),
                                .o = mutable_view("o", o, device),
                                .execution = execution};
  const at::Tensor memory = scratch(workspace_bytes(args), device);
  return [=] {
    static_cast<void>(in), static_cast<void>(o), static_cast<void>(state);
    delta_rule_decode_step(args, workspace(memory));
  };
}

}  // namespace

void load_torch_for_gpus() {
  int devices = 0;
  const cudaError_t status = cudaGetDeviceCount(&devices);
  require(status == cudaSuccess && devices > 0, ErrorCode::unsupported,
          "[bench] --device cuda needs a GPU, but CUDA finds none: ",
          status == cudaSuccess ? "none is visible" : cudaGetErrorString(status));
  require(dlopen("libtorch_cuda.so", RTLD_NOW | RTLD_GLOBAL) != nullptr, ErrorCode::unsupported,
          "[bench] --device cuda needs LibTorch with CUDA: ", dlerror());
}

GpuCall make_gpu_call(const GpuCase& x, c10::Device device) {
  const DeltaRuleTensors in = random_inputs(x, device);
  const Execution execution = {DeviceType::cuda, current_cuda_stream(device)};
  if (x.operation == Operation::decode_step) return decode_call(in, x, device, execution);
  return (x.operation == Operation::forward ? forward_call : backward_call)(in, x.rule, device, execution);
}

GpuCall make_copy(double bytes, c10::Device device) {
  const at::Tensor from = at::ones({static_cast<std::int64_t>(bytes / 8)}, at::TensorOptions(device).dtype(at::kInt));
  at::Tensor to = at::empty_like(from);
  return [=]() mutable { at::bitwise_not_out(to, from); };
}

GpuCall make_product(std::int64_t size, c10::Device device) {
  const auto bf16 = at::TensorOptions(device).dtype(at::kBFloat16);
  const at::Tensor a = at::randn({size, size}, bf16), b = at::randn({size, size}, bf16);
  at::Tensor product = at::empty_like(a);
  return [=]() mutable { at::matmul_out(product, a, b); };
}

}  // namespace comba::benchmarks
