#include "operators/delta_rule/cuda/sm90/sm90.h"

#include <algorithm>
#include <atomic>

#include "operators/delta_rule/cuda/device.h"
#include "operators/delta_rule/cuda/sm90/forward.h"
#include "operators/delta_rule/cuda/sm90/tensor_map.h"
#include "runtime/cuda_check.h"

namespace comba::delta_rule::cuda::sm90 {
namespace {

Gate gate(const ConstView& view) {
  return {view.data, view.dtype, {view.strides[0], view.strides[1], view.strides[2]}};
}

PerHead per_head(const ConstView& view) { return {static_cast<const float*>(view.data), view.strides[0]}; }

States states(const ConstView& view) {
  if (!view.given()) return {};
  return {const_cast<float*>(static_cast<const float*>(view.data)),
          {view.strides[0], view.strides[1], view.strides[2]}};
}

Sequences sequences(const Problem& x) {
  const DeltaRuleInputs& in = x.in;
  Sequences s;
  s.cu_seqlens = in.cu_seqlens.data;
  s.are_i64 = in.cu_seqlens.dtype == DType::i64;
  s.N = static_cast<int>(x.N);
  s.T = x.T;
  s.slots = static_cast<int>(in.cu_seqlens.given() ? x.T / kChunk + x.N : x.N * ((x.T + kChunk - 1) / kChunk));
  return s;
}

int padded(std::int64_t K) { return K <= 64 ? 64 : K <= 128 ? 128 : 256; }

std::atomic<int> forced_slice_columns = 0;

/// The widest slices that still give every multiprocessor a block: narrow ones shorten the chain of a chunk, but each
/// reads q and k again. Packed sequences, of many lengths, are shared out better in smaller blocks. Results do not
/// depend on any of this.
SliceChoice choose_slices(const Problem& x) {
  const std::int64_t slices = (x.V + 63) / 64;
  const bool pairs = padded(x.K) <= 128 && slices % 2 == 0;  // two slices in a block: they fit, and both have columns
  if (const int columns = forced_slice_columns; columns > 0) {
    return columns == 128 ? SliceChoice{64, pairs ? 2 : 1} : SliceChoice{columns, 1};
  }
  const int multiprocessors = num_multiprocessors();
  const auto blocks = [&](std::int64_t columns) { return x.N * x.HV * ((x.V + columns - 1) / columns); };
  if (pairs && !x.in.cu_seqlens.given() && blocks(128) * 10 >= multiprocessors * 9) return {64, 2};
  if (blocks(64) * 10 >= multiprocessors * 9) return {64, 1};
  if (blocks(32) * 10 >= multiprocessors * 9) return {32, 1};
  return {16, 1};
}

Arguments arguments(const Problem& x, const DeltaRuleForward& args, Workspace workspace, SliceChoice slices) {
  const DeltaRuleInputs& in = x.in;
  Arguments a;
  a.q = tensor_map(in.q, 64);
  a.k = tensor_map(in.k, 64);
  a.v = tensor_map(in.v, slices.columns);
  a.step = gate(in.beta.given() ? in.beta : in.beta_logit);
  a.decay = gate(in.g.given() ? in.g : in.a);
  a.b = per_head(in.b);
  a.d = per_head(in.d);
  a.A_log = per_head(in.A_log);
  a.dt_bias = per_head(in.dt_bias);
  a.initial_state = states(in.initial_state);
  a.final_state = states(args.final_state);
  a.o = args.o.data;
  std::copy_n(args.o.strides.begin(), 3, a.o_stride);
  a.chunks = static_cast<ChunkMatrices*>(workspace.data);
  a.sequences = sequences(x);
  a.beta_given = in.beta.given();
  a.gated_delta = x.options.rule == Rule::gated_delta;
  a.fla = x.options.convention == Convention::fla;
  a.l2norm = x.options.l2norm;
  a.K = static_cast<int>(x.K);
  a.V = static_cast<int>(x.V);
  a.HV = static_cast<int>(x.HV);
  a.group = static_cast<int>(x.group());
  a.l2norm_eps = x.options.l2norm_eps;
  a.scale = x.scale;
  a.beta_scale = x.options.beta_scale;
  return a;
}

std::string state_refusal(const ConstView& view) {
  if (!view.given()) return "";
  const bool pairs = view.strides[0] % 2 == 0 && view.strides[1] % 2 == 0 && view.strides[2] % 2 == 0 &&
                     reinterpret_cast<std::uintptr_t>(view.data) % 8 == 0;
  return pairs ? "" : "needs states of even strides, aligned to 8 bytes";
}

std::string refusal(const Problem& x) {
  if (x.execution.device != DeviceType::cuda) return "works on tensors in GPU memory only";
  if (x.verb != Verb::forward) return "has the forward pass only";
  const int major = compute_capability_major();
  if (major == 0) return "no GPU is visible";
  if (major != 9) return "needs a Hopper GPU (compute capability 9.0)";
  if (x.in.q.dtype == DType::f32) return "works on bf16 and f16 only";
  if (x.in.p.given()) return "has no full p yet";
  if (x.V % 8 != 0 || x.K % 8 != 0) return "needs K and V to be multiples of 8";
  if (x.B * x.T >= std::int64_t{1} << 31 || x.N > 65535 || x.HV > 65535) return "is made for smaller tensors";
  for (const auto& [name, view] : {std::pair{"q", x.in.q}, {"k", x.in.k}, {"v", x.in.v}}) {
    if (std::string why = tensor_map_refusal(name, view); !why.empty()) return why;
  }
  if (std::string why = tensor_map_refusal("o", x.o); !why.empty()) return why;
  if (std::string why = state_refusal(x.state); !why.empty()) return why;
  return state_refusal(x.in.initial_state);
}

std::int64_t workspace(const Problem& x) {
  return sequences(x).slots * x.HV * static_cast<std::int64_t>(sizeof(ChunkMatrices));
}

void forward(const Problem& x, const DeltaRuleForward& args, Workspace workspace) {
  if (x.N == 0) return;
  const SliceChoice slices = choose_slices(x);
  const auto launch = x.in.q.dtype == DType::bf16 ? launch_forward_bf16 : launch_forward_f16;
  launch(arguments(x, args, workspace, slices), padded(x.K), slices, x.execution.stream);
}

}  // namespace

void force_slice_columns(int columns) {
  require(columns == 0 || columns == 16 || columns == 32 || columns == 64 || columns == 128,
          ErrorCode::invalid_argument, "[cuda.sm90] columns must be 0, 16, 32, 64 or 128; got ", columns);
  forced_slice_columns = columns;
}

Implementation implementation() {
  return {"cuda.sm90", refusal, workspace, nullptr, nullptr, forward, nullptr, nullptr};
}

}  // namespace comba::delta_rule::cuda::sm90
