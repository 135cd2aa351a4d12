#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

#include "comba/dtype.h"

/// What the kernels of the layers around the operator share: eight neighbouring elements as one thread loads, converts
/// and stores them, and sums over threads. They are bound by memory alone: loads of 16 bytes, several of them in
/// flight.
namespace comba::cuda {

/// Eight neighbouring elements of 2 or 4 bytes as they lie in memory.
template <int kBytes>
struct Eight {
  static_assert(kBytes == 2 || kBytes == 4);
  uint4 bits[kBytes / 2];
};

/// Precondition: aligned to 16 bytes.
template <int kBytes>
__device__ Eight<kBytes> load_eight(const void* data, std::int64_t element) {
  const uint4* from = reinterpret_cast<const uint4*>(static_cast<const char*>(data) + element * kBytes);
  Eight<kBytes> x;
#pragma unroll
  for (int i = 0; i < kBytes / 2; ++i) x.bits[i] = from[i];
  return x;
}

template <int kBytes>
__device__ void store_eight(void* data, std::int64_t element, const Eight<kBytes>& x) {
  uint4* to = reinterpret_cast<uint4*>(static_cast<char*>(data) + element * kBytes);
#pragma unroll
  for (int i = 0; i < kBytes / 2; ++i) to[i] = x.bits[i];
}

template <int kBytes>
__device__ Eight<kBytes> zero_eight() {
  Eight<kBytes> x;
#pragma unroll
  for (int i = 0; i < kBytes / 2; ++i) x.bits[i] = make_uint4(0, 0, 0, 0);
  return x;
}

/// `is_f16` tells fp16 from bf16 where elements have 2 bytes: the same for all threads, so that it costs no more than a
/// comparison.
inline __device__ float2 pair_as_floats(unsigned pair, bool is_f16) {
  if (is_f16) return __half22float2(*reinterpret_cast<const __half2*>(&pair));
  return make_float2(__uint_as_float(pair << 16), __uint_as_float(pair & 0xffff0000u));
}

inline __device__ unsigned pair_from_floats(float low, float high, bool is_f16) {
  if (is_f16) {
    const __half2 pair = __floats2half2_rn(low, high);
    return *reinterpret_cast<const unsigned*>(&pair);
  }
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const unsigned*>(&pair);
}

inline __device__ void to_floats(const Eight<2>& x, bool is_f16, float (&values)[8]) {
  const unsigned pairs[4] = {x.bits[0].x, x.bits[0].y, x.bits[0].z, x.bits[0].w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float2 pair = pair_as_floats(pairs[i], is_f16);
    values[2 * i] = pair.x;
    values[2 * i + 1] = pair.y;
  }
}

inline __device__ void to_floats(const Eight<4>& x, bool, float (&values)[8]) {
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    values[4 * i] = __uint_as_float(x.bits[i].x);
    values[4 * i + 1] = __uint_as_float(x.bits[i].y);
    values[4 * i + 2] = __uint_as_float(x.bits[i].z);
    values[4 * i + 3] = __uint_as_float(x.bits[i].w);
  }
}

template <int kBytes>
__device__ Eight<kBytes> from_floats(const float (&values)[8], bool is_f16);

template <>
inline __device__ Eight<2> from_floats<2>(const float (&values)[8], bool is_f16) {
  Eight<2> x;
  x.bits[0] =
      make_uint4(pair_from_floats(values[0], values[1], is_f16), pair_from_floats(values[2], values[3], is_f16),
                 pair_from_floats(values[4], values[5], is_f16), pair_from_floats(values[6], values[7], is_f16));
  return x;
}

template <>
inline __device__ Eight<4> from_floats<4>(const float (&values)[8], bool) {
  Eight<4> x;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    x.bits[i] = make_uint4(__float_as_uint(values[4 * i]), __float_as_uint(values[4 * i + 1]),
                           __float_as_uint(values[4 * i + 2]), __float_as_uint(values[4 * i + 3]));
  }
  return x;
}

/// One element of any floating dtype.
inline __device__ float load_one(const void* data, DType dtype, std::int64_t element) {
  if (dtype == DType::f32) return static_cast<const float*>(data)[element];
  const unsigned bits = static_cast<const unsigned short*>(data)[element];
  return pair_as_floats(bits, dtype == DType::f16).x;
}

inline __device__ void store_one(void* data, DType dtype, std::int64_t element, float value) {
  if (dtype == DType::f32) {
    static_cast<float*>(data)[element] = value;
  } else {
    const unsigned pair = pair_from_floats(value, 0, dtype == DType::f16);
    static_cast<unsigned short*>(data)[element] = static_cast<unsigned short>(pair);
  }
}

/// What a value becomes in memory.
inline __device__ float rounded(float value, DType dtype) {
  if (dtype == DType::f32) return value;
  return pair_as_floats(pair_from_floats(value, 0, dtype == DType::f16), dtype == DType::f16).x;
}

/// 2^x; 0 below 2^-126.
inline __device__ float exp2_approx(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

inline __device__ float sigmoid(float x) {
  constexpr float kLog2E = 1.4426950408889634f;
  return __fdividef(1.0f, 1.0f + exp2_approx(-kLog2E * x));
}

/// d silu(x) / dx, with s = sigmoid(x).
inline __device__ float silu_derivative(float x, float s) { return s * (1 + x * (1 - s)); }

/// The sum over groups of kGroup <= 32 neighbouring lanes, in a fixed order. All lanes of the warp take part.
template <int kGroup>
__device__ float group_sum(float x) {
#pragma unroll
  for (int lane = kGroup / 2; lane > 0; lane /= 2) x += __shfl_xor_sync(~0u, x, lane);
  return x;
}

}  // namespace comba::cuda
