#include "operators/delta_rule/cuda/generic/generic.h"

#include <algorithm>
#include <array>
#include <atomic>

#include "operators/delta_rule/cuda/device.h"
#include "operators/delta_rule/cuda/generic/chunk_launch.h"
#include "operators/delta_rule/cuda/generic/decode.cuh"
#include "operators/delta_rule/cuda/generic/problem_arguments.cuh"
#include "operators/delta_rule/cuda/generic/recurrent.cuh"
#include "runtime/cuda_check.h"

namespace comba::delta_rule::cuda::generic {
namespace {

template <class T, int kRows, bool kVectors>
void launch(const Problem& x, const Arguments& a) {
  constexpr int kBytes = 2 * sizeof(Tile<32 * kRows>);
  const auto kernel = recurrent<T, kRows, kVectors>;
  check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes), "cudaFuncSetAttribute");
  const auto blocks = static_cast<unsigned>(x.N * x.HV * a.num_slices);
  kernel<<<blocks, kThreads, kBytes, x.execution.stream>>>(a);
  check_cuda(cudaGetLastError(), "the launch of cuda.generic");
}

template <class T, int kRows>
void choose_vectors(const Problem& x, const Arguments& a) {
  const bool vectors = rows_of_vectors(a.initial_state, x.V) && rows_of_vectors(a.final_state, x.V);
  vectors ? launch<T, kRows, true>(x, a) : launch<T, kRows, false>(x, a);
}

template <class T>
void choose_rows(const Problem& x, const Arguments& a) {
  if (x.K <= 32) return choose_vectors<T, 1>(x, a);
  if (x.K <= 64) return choose_vectors<T, 2>(x, a);
  if (x.K <= 128) return choose_vectors<T, 4>(x, a);
  if (x.K <= 192) return choose_vectors<T, 6>(x, a);
  choose_vectors<T, 8>(x, a);
}

void run(const Problem& x, const ConstView& initial_state, const View& final_state, const View& o) {
  if (x.N == 0) return;
  const Arguments a = arguments(x, initial_state, final_state, o);
  switch (x.in.q.dtype) {
    case DType::bf16:
      return choose_rows<__nv_bfloat16>(x, a);
    case DType::f16:
      return choose_rows<__half>(x, a);
    default:
      return choose_rows<float>(x, a);
  }
}

/// Blocks of decode for `tokens` tokens at a time that run at once on the current device, whose limit of shared memory
/// this sets. Asked once: the answers take longer than the launch.
template <class T, class StateElement, int kKeys>
unsigned fitting_blocks(int tokens) {
  constexpr int kDevices = 64;
  static std::array<std::atomic<unsigned>, kDevices * kTile> known{};
  using Shared = DecodeShared<StateElement, kKeys>;
  const auto kernel = decode<T, StateElement, kKeys>;
  const int device = current_device();
  std::atomic<unsigned>* const kept = device < kDevices ? &known[device * kTile + tokens - 1] : nullptr;
  if (const unsigned fitting = kept ? kept->load() : 0; fitting > 0) return fitting;
  check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, Shared::bytes(kTile)),
             "cudaFuncSetAttribute");
  int blocks = 0;
  check_cuda(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, kernel, kDecodeThreads<StateElement, kKeys>,
                                                           Shared::bytes(tokens)),
             "cudaOccupancyMaxActiveBlocksPerMultiprocessor");
  const auto fitting = static_cast<unsigned>(num_multiprocessors() * blocks);
  if (kept) *kept = fitting;
  return fitting;
}

template <class T, class StateElement, int kKeys>
void launch_decode(const Problem& x, DecodeArguments a) {
  constexpr int kColumns = LaneState<StateElement, kKeys>::kColumns, kThreads = kDecodeThreads<StateElement, kKeys>;
  const auto kernel = decode<T, StateElement, kKeys>;
  const int tokens = static_cast<int>(std::min<std::int64_t>(x.T, kTile));
  a.num_slices = static_cast<int>((x.V + kColumns - 1) / kColumns);
  a.num_pieces = static_cast<unsigned>(x.B * x.HV * a.num_slices);
  const unsigned blocks = std::min(a.num_pieces, fitting_blocks<T, StateElement, kKeys>(tokens));
  kernel<<<blocks, kThreads, DecodeShared<StateElement, kKeys>::bytes(tokens), x.execution.stream>>>(a);
  check_cuda(cudaGetLastError(), "the launch of cuda.generic");
}

template <class T, class StateElement>
void choose_decode_rows(const Problem& x, const DecodeArguments& a) {
  if (x.K <= 64) return launch_decode<T, StateElement, 64>(x, a);
  if (x.K <= 128) return launch_decode<T, StateElement, 128>(x, a);
  launch_decode<T, StateElement, 256>(x, a);
}

template <class T>
void choose_decode_state(const Problem& x, const DecodeArguments& a) {
  x.state.dtype == DType::f32 ? choose_decode_rows<T, float>(x, a) : choose_decode_rows<T, __nv_bfloat16>(x, a);
}

void run_decode(const Problem& x, const DecodeArguments& a) {
  if (x.B == 0 || x.T == 0) return;
  switch (x.in.q.dtype) {
    case DType::bf16:
      return choose_decode_state<__nv_bfloat16>(x, a);
    case DType::f16:
      return choose_decode_state<__half>(x, a);
    default:
      return choose_decode_state<float>(x, a);
  }
}

/// What only the kernel for new tokens can do, of a decode call.
bool needs_decode_kernel(const Problem& x) {
  return x.verb == Verb::decode_step &&
         (x.state_indices.given() || x.num_accepted.given() || x.state.dtype != DType::f32);
}

std::string refusal(const Problem& x) {
  if (x.execution.device != DeviceType::cuda) return "works on tensors in GPU memory only";
  const int major = compute_capability_major();
  if (major == 0) return "no GPU is visible";
  if (major < 8) return "needs a GPU of compute capability 8.0 or later";
  if (needs_decode_kernel(x) && !rows_of_vectors(strided(x.state), x.V)) {
    return "needs rows of the state that begin at multiples of 16 bytes";
  }
  const std::int64_t slices = (x.V + kSliceColumns - 1) / kSliceColumns, chunks = (x.T + 63) / 64 + 1;
  const bool fits =
      x.N * x.HV * slices < (std::int64_t{1} << 31) && (x.B * chunks + x.N) * x.HV < (std::int64_t{1} << 31);
  return fits ? "" : "has at most 2^31 slices of heads, and chunks of heads";
}

std::int64_t no_workspace(const Problem&) { return 0; }

/// Forward: the chunk form where the tensor cores have the dtype, otherwise token by token. Nothing else decides, so
/// that a sequence gives the same bits whatever else is in the call.
std::int64_t forward_workspace(const Problem& x) {
  switch (x.in.q.dtype) {
    case DType::bf16:
      return forward_workspace_bf16(x);
    case DType::f16:
      return forward_workspace_f16(x);
    default:
      return 0;
  }
}

void forward(const Problem& x, const DeltaRuleForward& args, Workspace workspace) {
  const auto in_chunks = x.in.q.dtype == DType::bf16 ? forward_in_chunks_bf16 : forward_in_chunks_f16;
  if (x.in.q.dtype == DType::f32) return run(x, x.in.initial_state, args.final_state, args.o);
  in_chunks(x, arguments(x, x.in.initial_state, args.final_state, args.o), workspace);
}

HeadGradient head_gradient(const View& view) { return {static_cast<float*>(view.data), view.strides[0]}; }

GradientTensors gradient_tensors(const DeltaRuleBackward& args) {
  GradientTensors t;
  t.d_o = strided(args.do_);
  t.d_final_state = strided(args.d_final_state);
  t.dq = strided(args.dq);
  t.dk = strided(args.dk);
  t.dv = strided(args.dv);
  t.dp = strided(args.dp);
  t.d_step = strided(args.dbeta.given() ? args.dbeta : args.dbeta_logit);
  t.d_decay = strided(args.dg.given() ? args.dg : args.da);
  t.d_initial_state = strided(args.d_initial_state);
  t.db = head_gradient(args.db);
  t.dd = head_gradient(args.dd);
  t.dA_log = head_gradient(args.dA_log);
  t.ddt_bias = head_gradient(args.ddt_bias);
  return t;
}

std::int64_t backward_workspace(const Problem& x) {
  switch (x.in.q.dtype) {
    case DType::bf16:
      return backward_workspace_bf16(x);
    case DType::f16:
      return backward_workspace_f16(x);
    default:
      return backward_workspace_f32(x);
  }
}

void backward(const Problem& x, const DeltaRuleBackward& args, Workspace workspace) {
  const Arguments a = arguments(x, x.in.initial_state, {}, {});
  const GradientTensors tensors = gradient_tensors(args);
  switch (x.in.q.dtype) {
    case DType::bf16:
      return backward_in_chunks_bf16(x, a, tensors, workspace);
    case DType::f16:
      return backward_in_chunks_f16(x, a, tensors, workspace);
    default:
      return backward_in_chunks_f32(x, a, tensors, workspace);
  }
}

void decode_step(const Problem& x, const DeltaRuleDecode& args, Workspace) {
  if (!rows_of_vectors(strided(x.state), x.V)) return run(x, args.state, args.state, args.o);
  run_decode(x, decode_arguments(x, args));
}

}  // namespace

Implementation implementation() {
  return {"cuda.generic", refusal, forward_workspace, backward_workspace, no_workspace, forward, backward, decode_step};
}

}  // namespace comba::delta_rule::cuda::generic
