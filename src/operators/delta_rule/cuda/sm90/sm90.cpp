#include "operators/delta_rule/cuda/sm90/sm90.h"

#include <algorithm>
#include <atomic>
#include <span>

#include "operators/delta_rule/cuda/device.h"
#include "operators/delta_rule/cuda/sm90/backward.h"
#include "operators/delta_rule/cuda/sm90/decode.h"
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
std::atomic<Following> forced_following = Following::chosen;

/// The slices with which scan ends first: as many turns of blocks as the GPU needs, each as long as a sequence. Narrow
/// slices shorten the chain of a chunk, but each reads q and k again. Packed sequences, of many lengths, are shared out
/// better in smaller blocks. Results do not depend on any of this.
SliceChoice choose_slices(const Problem& x) {
  const std::int64_t slices = (x.V + 63) / 64;
  const bool pairs = padded(x.K) <= 128 && slices % 2 == 0;  // two slices in a block: they fit, and both have columns
  if (const int columns = forced_slice_columns; columns > 0) {
    return columns == 128 ? SliceChoice{64, pairs ? 2 : 1} : SliceChoice{columns, 1};
  }
  // Time of a chunk against that of 16 columns, as measured on an H200 at K = 128.
  struct Choice {
    SliceChoice slices;
    double chunk;
  };
  constexpr Choice kChoices[] = {{{64, 2}, 2.9}, {{64, 1}, 1.75}, {{32, 1}, 1.4}, {{16, 1}, 1}};
  const std::int64_t multiprocessors = num_multiprocessors();
  const auto time = [&](const Choice& choice) {
    const std::int64_t columns = choice.slices.columns * choice.slices.groups;
    const std::int64_t blocks = x.N * x.HV * ((x.V + columns - 1) / columns);
    return static_cast<double>((blocks + multiprocessors - 1) / multiprocessors) * choice.chunk;
  };
  const std::span<const Choice> choices(kChoices);
  const bool takes_pairs = pairs && !x.in.cu_seqlens.given();
  return std::ranges::min(choices.subspan(takes_pairs ? 0 : 1), {}, time).slices;
}

/// That of scan beside reverse: wider slices leave it multiprocessors.
SliceChoice beside_reverse(SliceChoice wish) { return wish.columns == 16 ? SliceChoice{32, 1} : wish; }

/// The shape with a full p that comes next: launch_with_feedback has fewer.
SliceChoice with_feedback(const Problem& x, SliceChoice wish) {
  if (padded(x.K) == 256) return {32, 1};
  return wish.columns == 64 && wish.groups == 1 ? SliceChoice{32, 1} : wish;
}

Arguments arguments(const Problem& x, const DeltaRuleForward& args, SliceChoice slices) {
  const DeltaRuleInputs& in = x.in;
  Arguments a;
  a.q = tensor_map(in.q, 64);
  a.k = tensor_map(in.k, 64);
  a.v = tensor_map(in.v, slices.columns);
  if (in.p.given()) a.p = tensor_map(in.p, 64);
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
  a.sequences = sequences(x);
  a.full_feedback = in.p.given();
  a.p_of_value_heads = x.P_heads == x.HV;
  a.beta_given = in.beta.given();
  a.gated_delta = x.options.rule == Rule::gated_delta;
  a.fla = x.options.convention == Convention::fla;
  a.l2norm = x.options.l2norm;
  a.K = static_cast<int>(x.K);
  a.V = static_cast<int>(x.V);
  a.H = static_cast<int>(x.H);
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
  const int major = compute_capability_major();
  if (major == 0) return "no GPU is visible";
  if (major != 9) return "needs a Hopper GPU (compute capability 9.0)";
  if (x.verb == Verb::decode_step) return decode_refusal(x);
  if (x.in.q.dtype == DType::f32) return "works on bf16 and f16 only";
  if (x.V % 8 != 0 || x.K % 8 != 0) return "needs K and V to be multiples of 8";
  if (x.B * x.T >= std::int64_t{1} << 31 || x.N > 65535 || x.HV > 65535) return "is made for smaller tensors";
  if (x.in.p.given()) {
    if (x.verb == Verb::backward) return "has no backward for a full p yet";
    if (std::string why = tensor_map_refusal("p", x.in.p); !why.empty()) return why;
  }
  for (const auto& [name, view] : {std::pair{"q", x.in.q}, {"k", x.in.k}, {"v", x.in.v}}) {
    if (std::string why = tensor_map_refusal(name, view); !why.empty()) return why;
  }
  if (x.verb == Verb::backward) {
    const DeltaRuleBackward& args = *x.backward;
    for (const auto& [name, view] :
         {std::pair<const char*, ConstView>{"do_", args.do_}, {"dq", args.dq}, {"dk", args.dk}, {"dv", args.dv}}) {
      if (!view.given()) continue;
      if (std::string why = tensor_map_refusal(name, view); !why.empty()) return why;
    }
    for (const ConstView& state : {args.d_final_state, ConstView(args.d_initial_state)}) {
      if (std::string why = state_refusal(state); !why.empty()) return why;
    }
  } else {
    if (std::string why = tensor_map_refusal("o", x.o); !why.empty()) return why;
    if (std::string why = state_refusal(x.state); !why.empty()) return why;
  }
  return state_refusal(x.in.initial_state);
}

/// Parts of memory, one after the other.
struct Parts {
  std::int64_t bytes = 0;

  /// Where a part of `size` begins.
  std::int64_t take(std::int64_t size) {
    const std::int64_t begin = bytes;
    bytes += (size + 127) / 128 * 128;
    return begin;
  }
};

std::byte* part(Workspace of, std::int64_t begin) { return static_cast<std::byte*>(of.data) + begin; }

std::int64_t chunks_of(const Problem& x) { return sequences(x).slots * x.HV; }
std::int64_t V_rows_of(const Problem& x) { return (x.V + 63) / 64 * 64; }

/// What the forward pass leaves for the backward pass.
struct SavedParts : Parts {
  std::int64_t matrices, gates, states, writes;  ///< where they begin

  explicit SavedParts(const Problem& x) {
    const std::int64_t chunks = chunks_of(x), V_rows = V_rows_of(x);
    matrices = take(chunks * static_cast<std::int64_t>(sizeof(ChunkMatrices)));
    gates = take(chunks * kSavedGatesBytes);
    states = take(chunks * V_rows * padded(x.K) * 2);
    writes = take(chunks * V_rows * kChunk * 2);
  }

  void give_to(Arguments& a, const Problem& x, Workspace saved) const {
    a.chunks = reinterpret_cast<ChunkMatrices*>(part(saved, matrices));
    a.gates = reinterpret_cast<SavedGates*>(part(saved, gates));
    a.states = reinterpret_cast<std::uint16_t*>(part(saved, states));
    a.writes = reinterpret_cast<std::uint16_t*>(part(saved, writes));
    a.V_rows = static_cast<int>(V_rows_of(x));
  }
};

/// Slices of reverse where gradients follows it.
std::int64_t followed_slices(const Problem& x) { return (x.V + kFollowedColumns - 1) / kFollowedColumns; }

/// Those that pass between its kernels.
struct BackwardParts : Parts {
  std::int64_t d_states, d_errors, value_parts, key_parts, progress;  ///< where they begin

  explicit BackwardParts(const Problem& x) {
    const std::int64_t chunks = chunks_of(x), V_rows = V_rows_of(x);
    d_states = take(chunks * V_rows * padded(x.K) * 2);
    d_errors = take(chunks * V_rows * kChunk * 2);
    value_parts = take(chunks * static_cast<std::int64_t>(sizeof(ValueHeadPart)));
    key_parts = take(sequences(x).slots * x.H * static_cast<std::int64_t>(sizeof(KeyHeadPart)));
    progress = take(x.N * x.HV * followed_slices(x) * 4);
  }
};

std::int64_t saved_bytes(const Problem& x) { return x.in.p.given() ? 0 : SavedParts(x).bytes; }

/// Whether the call leaves them, or finds them.
bool has_saved(const Problem& x) { return x.saved_bytes > 0 && saved_bytes(x) > 0; }

std::int64_t workspace(const Problem& x) {
  return has_saved(x) ? 0 : chunks_of(x) * static_cast<std::int64_t>(sizeof(ChunkMatrices));
}

std::int64_t backward_workspace(const Problem& x) {
  return BackwardParts(x).bytes + (has_saved(x) ? 0 : SavedParts(x).bytes);
}

/// Queues the forward kernels, as they are told to by `a`.
void launch_forward(const Problem& x, const Arguments& a, SliceChoice slices) {
  const auto launch = x.in.q.dtype == DType::bf16 ? launch_forward_bf16 : launch_forward_f16;
  launch(a, padded(x.K), slices, x.execution.stream);
}

void forward(const Problem& x, const DeltaRuleForward& args, Workspace workspace) {
  if (x.N == 0) return;
  const SliceChoice wish = choose_slices(x), slices = x.in.p.given() ? with_feedback(x, wish) : wish;
  Arguments a = arguments(x, args, slices);
  if (has_saved(x)) {
    SavedParts(x).give_to(a, x, args.saved);
  } else {
    a.chunks = static_cast<ChunkMatrices*>(workspace.data);
  }
  launch_forward(x, a, slices);
}

/// Wide slices read q and k less often; narrow ones give more blocks.
BackwardSlices choose_backward_slices(const Problem& x) {
  const std::int64_t slices = (x.V + 63) / 64;
  const bool pairs = padded(x.K) <= 128;
  if (pairs && slices % 2 != 0) return BackwardSlices::narrow;
  const std::int64_t blocks = x.N * x.HV * (pairs ? slices / 2 : slices);
  return blocks * 10 >= num_multiprocessors() * 9 ? BackwardSlices::wide : BackwardSlices::narrow;
}

/// Whether gradients does what reverse has left behind on the multiprocessors that reverse leaves: at least half of
/// them, for long enough to be worth it. Packed sequences, of many lengths, would have to wait for each other. Results
/// do not depend on it: who does a chunk, and when, is all that changes.
bool gradients_follows(const Problem& x, bool saved, BackwardSlices slices) {
  constexpr std::int64_t kLong = 64 * kChunk;
  const Following when = forced_following;
  const bool equal_lengths = !x.in.cu_seqlens.given() || x.N == 1;
  if (!saved || slices != BackwardSlices::narrow || !equal_lengths || when == Following::never) return false;
  if (when == Following::wherever_possible) return true;
  return x.T >= kLong && x.N * x.HV * followed_slices(x) * 2 <= num_multiprocessors();
}

RowGradient row_gradient(const View& view) { return {view.data, {view.strides[0], view.strides[1], view.strides[2]}}; }

GateGradient gate_gradient(const View& view) {
  return {view.data, view.dtype, {view.strides[0], view.strides[1], view.strides[2]}};
}

PerHeadGradient per_head_gradient(const View& view) { return {static_cast<float*>(view.data), view.strides[0]}; }

void backward(const Problem& x, const DeltaRuleBackward& args, Workspace workspace) {
  if (x.N == 0) return;
  const BackwardSlices slices = choose_backward_slices(x);
  const SliceChoice forward_slices = beside_reverse(choose_slices(x));
  const int columns = columns_of(slices);
  const BackwardParts parts(x);
  const bool saved = has_saved(x);
  BackwardArguments a;
  a.forward = arguments(x, {}, forward_slices);
  SavedParts(x).give_to(a.forward, x, saved ? args.saved : Workspace{part(workspace, parts.bytes), 0});
  a.d_o_slice = tensor_map(args.do_, columns);
  a.d_o = tensor_map(args.do_, 64);
  const View d_errors(part(workspace, parts.d_errors), x.in.q.dtype, {chunks_of(x), kChunk, 1, V_rows_of(x)});
  a.d_error_slice = tensor_map(d_errors, columns);
  a.d_error = tensor_map(d_errors, 64);
  a.d_states = reinterpret_cast<std::uint16_t*>(part(workspace, parts.d_states));
  a.value_parts = reinterpret_cast<ValueHeadPart*>(part(workspace, parts.value_parts));
  a.key_parts = reinterpret_cast<KeyHeadPart*>(part(workspace, parts.key_parts));
  if (gradients_follows(x, saved, slices)) a.progress = reinterpret_cast<unsigned*>(part(workspace, parts.progress));
  a.d_final_state = states(args.d_final_state);
  a.d_initial_state = states(args.d_initial_state);
  a.dq = row_gradient(args.dq);
  a.dk = row_gradient(args.dk);
  a.dv = row_gradient(args.dv);
  a.v = {const_cast<void*>(x.in.v.data), {x.in.v.strides[0], x.in.v.strides[1], x.in.v.strides[2]}};
  a.d_step = gate_gradient(x.in.beta.given() ? args.dbeta : args.dbeta_logit);
  a.d_decay = gate_gradient(x.in.g.given() ? args.dg : args.da);
  a.db = per_head_gradient(args.db);
  a.dd = per_head_gradient(args.dd);
  a.dA_log = per_head_gradient(args.dA_log);
  a.ddt_bias = per_head_gradient(args.ddt_bias);
  if (!saved) launch_forward(x, a.forward, forward_slices);
  const auto launch = x.in.q.dtype == DType::bf16 ? launch_backward_bf16 : launch_backward_f16;
  launch(a, padded(x.K), slices, saved, x.execution.stream);
}

}  // namespace

void force_following(Following when) { forced_following = when; }

void force_slice_columns(int columns) {
  require(columns == 0 || columns == 16 || columns == 32 || columns == 64 || columns == 128,
          ErrorCode::invalid_argument, "[cuda.sm90] columns must be 0, 16, 32, 64 or 128; got ", columns);
  forced_slice_columns = columns;
}

Implementation implementation() {
  const auto no_workspace = [](const Problem&) -> std::int64_t { return 0; };
  const auto decode_step = [](const Problem& x, const DeltaRuleDecode& args, Workspace) { decode(x, args); };
  return {"cuda.sm90", refusal,  workspace,   backward_workspace, no_workspace,
          forward,     backward, decode_step, saved_bytes};
}

}  // namespace comba::delta_rule::cuda::sm90
