#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

#include "comba/dtype.h"

/// What the kernels are told, and their elements.
namespace comba::delta_rule::cuda::generic {

/// A tensor on the device; strides in elements, of the last dimension always 1 for those of rank 4.
struct Strided {
  void* data = nullptr;
  DType dtype = DType::f32;
  std::int64_t stride[3] = {};  ///< of the first three dimensions
};

/// What every kernel is told. Absent tensors have no data.
struct Arguments {
  Strided q, k, v, p;            ///< [B, T, heads, dim]
  Strided step, decay;           ///< beta or beta_logit, g or a  [B, T, HV]
  Strided initial_state;         ///< [N, HV, K, V] f32
  Strided final_state;           ///< [N, HV, K, V] f32
  Strided o;                     ///< [B, T, HV, V]
  const float *b, *d;            ///< [H]
  const float *A_log, *dt_bias;  ///< [HV]
  std::int64_t b_stride, d_stride, A_log_stride, dt_bias_stride;
  const void* cu_seqlens;  ///< [N + 1]
  bool cu_seqlens_are_i64, beta_given, gated_delta, fla, l2norm;
  int K, V, HV, group, value_heads_per_p, num_slices;
  std::int64_t T;
  float l2norm_eps, scale, beta_scale;
};

/// What decode is told besides. The state is `initial_state` of Arguments, of any of the dtypes f32 and bf16.
struct DecodeArguments : Arguments {
  const std::int32_t* state_indices = nullptr;  ///< [B], or null: b
  const std::int32_t* num_accepted = nullptr;   ///< [B], or null: T
  std::int64_t state_indices_stride = 0, num_accepted_stride = 0, num_states = 0;
  unsigned num_pieces = 0;  ///< num_slices of each value head of each batch row
};

/// A gradient of one number a head; absent: no data.
struct HeadGradient {
  float* data = nullptr;
  std::int64_t stride = 0;
};

/// What backward is told besides.
struct GradientTensors {
  Strided d_o;                                               ///< [B, T, HV, V]
  Strided d_final_state;                                     ///< [N, HV, K, V] f32
  Strided dq, dk, dv, dp, d_step, d_decay, d_initial_state;  ///< with the shapes of their inputs
  HeadGradient db, dd, dA_log, ddt_bias;
};

/// The bits of an element, in a register of their own: packed in pairs, or converted, they would have to be waited for.
inline __device__ unsigned load_bits(const float* from) { return *reinterpret_cast<const unsigned*>(from); }
inline __device__ unsigned load_bits(const __nv_bfloat16* from) {
  return *reinterpret_cast<const unsigned short*>(from);
}
inline __device__ unsigned load_bits(const __half* from) { return *reinterpret_cast<const unsigned short*>(from); }

template <class T>
__device__ float as_float(unsigned bits);
template <>
inline __device__ float as_float<float>(unsigned bits) {
  return __uint_as_float(bits);
}
template <>
inline __device__ float as_float<__nv_bfloat16>(unsigned bits) {
  return __uint_as_float(bits << 16);
}
template <>
inline __device__ float as_float<__half>(unsigned bits) {
  return __half2float(__ushort_as_half(static_cast<unsigned short>(bits)));
}

template <class T>
__device__ T from_float(float x);
template <>
inline __device__ float from_float<float>(float x) {
  return x;
}
template <>
inline __device__ __nv_bfloat16 from_float<__nv_bfloat16>(float x) {
  return __float2bfloat16_rn(x);
}
template <>
inline __device__ __half from_float<__half>(float x) {
  return __float2half_rn(x);
}

/// An element of a gate, whatever its dtype, as it lies in memory.
struct RawGate {
  unsigned bits;

  __device__ void load(const Strided& x, std::int64_t batch, std::int64_t token, int head) {
    const std::int64_t at = batch * x.stride[0] + token * x.stride[1] + head * x.stride[2];
    bits = x.dtype == DType::f32 ? load_bits(static_cast<const float*>(x.data) + at)
                                 : load_bits(static_cast<const __half*>(x.data) + at);
  }

  __device__ float value(DType dtype) const {
    if (dtype == DType::f32) return as_float<float>(bits);
    return dtype == DType::bf16 ? as_float<__nv_bfloat16>(bits) : as_float<__half>(bits);
  }
};

inline __device__ float warp_sum(float x) {
  for (int lane = 16; lane > 0; lane /= 2) x += __shfl_xor_sync(~0u, x, lane);
  return x;
}

}  // namespace comba::delta_rule::cuda::generic
