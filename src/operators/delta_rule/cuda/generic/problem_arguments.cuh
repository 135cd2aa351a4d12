#pragma once

#include <cstdint>

#include "operators/delta_rule/cuda/generic/prepare.cuh"
#include "operators/delta_rule/problem.h"

/// A checked call, as kernels are told of it.
namespace comba::delta_rule::cuda::generic {

inline Strided strided(const ConstView& view) {
  Strided x;
  if (!view.given()) return x;
  x.data = const_cast<void*>(view.data);
  x.dtype = view.dtype;
  for (int i = 0; i < 3 && i < view.rank; ++i) x.stride[i] = view.strides[i];
  return x;
}

inline const float* floats(const ConstView& view) { return static_cast<const float*>(view.data); }

/// Whether every row of a state [N, HV, K, V] may be read in pieces of 16 bytes.
inline bool rows_of_vectors(const Strided& state, std::int64_t V) {
  const std::int64_t vector = 16 / size_of(state.dtype);
  bool aligned = V % vector == 0 && reinterpret_cast<std::uintptr_t>(state.data) % 16 == 0;
  for (const std::int64_t stride : state.stride) aligned = aligned && stride % vector == 0;
  return aligned;
}

inline Arguments arguments(const Problem& x, const ConstView& initial_state, const View& final_state, const View& o) {
  const DeltaRuleInputs& in = x.in;
  Arguments a;
  a.q = strided(in.q);
  a.k = strided(in.k);
  a.v = strided(in.v);
  a.p = strided(in.p);
  a.step = strided(in.beta.given() ? in.beta : in.beta_logit);
  a.decay = strided(in.g.given() ? in.g : in.a);
  a.initial_state = strided(initial_state);
  a.final_state = strided(final_state);
  a.o = strided(o);
  a.b = floats(in.b);
  a.d = floats(in.d);
  a.A_log = floats(in.A_log);
  a.dt_bias = floats(in.dt_bias);
  a.b_stride = in.b.strides[0];
  a.d_stride = in.d.strides[0];
  a.A_log_stride = in.A_log.strides[0];
  a.dt_bias_stride = in.dt_bias.strides[0];
  a.cu_seqlens = in.cu_seqlens.data;
  a.cu_seqlens_are_i64 = in.cu_seqlens.dtype == DType::i64;
  a.beta_given = in.beta.given();
  a.gated_delta = x.options.rule == Rule::gated_delta;
  a.fla = x.options.convention == Convention::fla;
  a.l2norm = x.options.l2norm;
  a.K = static_cast<int>(x.K);
  a.V = static_cast<int>(x.V);
  a.HV = static_cast<int>(x.HV);
  a.group = static_cast<int>(x.group());
  a.value_heads_per_p = x.P_heads > 0 ? static_cast<int>(x.HV / x.P_heads) : 0;
  a.num_slices = static_cast<int>((x.V + kSliceColumns - 1) / kSliceColumns);
  a.T = x.T;
  a.l2norm_eps = x.options.l2norm_eps;
  a.scale = x.scale;
  a.beta_scale = x.options.beta_scale;
  return a;
}

inline DecodeArguments decode_arguments(const Problem& x, const DeltaRuleDecode& args) {
  DecodeArguments a{arguments(x, args.state, {}, args.o)};
  a.state_indices = static_cast<const std::int32_t*>(x.state_indices.data);
  a.state_indices_stride = x.state_indices.strides[0];
  a.num_accepted = static_cast<const std::int32_t*>(x.num_accepted.data);
  a.num_accepted_stride = x.num_accepted.strides[0];
  a.num_states = x.state.sizes[0];
  return a;
}

}  // namespace comba::delta_rule::cuda::generic
