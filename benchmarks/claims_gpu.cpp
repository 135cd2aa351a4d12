#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <memory>
#include <tuple>

#include "claims.h"
#include "gpu_calls.h"
#include "gpu_timer.h"

namespace comba::benchmarks {
namespace {

using Json = nlohmann::ordered_json;

/// PyTorch's FlashAttention, which at::scaled_dot_product_attention takes for these tensors; its backward pass alone.
GpuCall make_attention(const ClaimsCase& x, c10::Device device) {
  const auto random = [&] {
    const auto bf16 = at::TensorOptions(device).dtype(at::kBFloat16);
    return at::randn({x.B, x.T, x.H, x.D}, bf16).transpose(1, 2);
  };
  const at::Tensor q = random(), k = random(), v = random();
  const auto forward = [=] { return at::_scaled_dot_product_flash_attention(q, k, v, 0.0, /*is_causal=*/true); };
  if (!x.backward) return [=] { forward(); };
  const auto [o, logsumexp, cum_q, cum_k, max_q, max_k, seed, offset, mask] = forward();
  const at::Tensor d_o = at::randn_like(o);
  const auto saved = std::make_shared<
      std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, c10::SymInt, c10::SymInt, at::Tensor, at::Tensor>>(
      o, logsumexp, cum_q, cum_k, max_q, max_k, seed, offset);
  return [=] {
    const auto& [o, logsumexp, cum_q, cum_k, max_q, max_k, seed, offset] = *saved;
    at::_scaled_dot_product_flash_attention_backward(d_o, q, k, v, o, logsumexp, cum_q, cum_k, max_q.expect_int(),
                                                     max_k.expect_int(), 0.0, /*is_causal=*/true, seed, offset);
  };
}

GpuCall make_call(const ClaimsCase& x, c10::Device device) {
  if (x.contestant == "attention") return make_attention(x, device);
  const Operation operation = x.backward ? Operation::backward : Operation::forward;
  const Rule rule = x.contestant == "comba" ? Rule::comba : Rule::gated_delta;
  return make_gpu_call({operation, rule, x.B, x.T, x.H, x.H, x.D, x.D}, device);
}

double footprint_of(const ClaimsCase& x) { return 2.0 * 4 * static_cast<double>(x.B * x.T * x.H * x.D); }

}  // namespace

ClaimsDevice claims_on_gpu(const ClaimsBench& bench) {
  load_torch_for_gpus();
  at::manual_seed(1);
  const auto gpu = std::make_shared<GpuTimer>();
  cudaDeviceProp properties;
  check_cuda(cudaGetDeviceProperties(&properties, gpu->device.index()), "cudaGetDeviceProperties");
  const auto time = [gpu, repetitions = bench.repetitions](const ClaimsCase& x) {
    const at::NoGradGuard no_grad;
    return summary(gpu->time(footprint_of(x), repetitions, [&] { return make_call(x, gpu->device); }));
  };
  return {.context = {{"device", properties.name}, {"dtype", "bf16"}}, .time = time};
}

}  // namespace comba::benchmarks
