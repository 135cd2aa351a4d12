#pragma once

#include <cuda_bf16.h>

#include "base/half.h"

/// 16-bit numbers in registers.
namespace comba::model_step::cuda {

using Bf16 = __nv_bfloat16;

__device__ inline float as_float(bf16 x) { return __uint_as_float(static_cast<unsigned>(x.bits) << 16); }
__device__ inline bf16 as_bf16(float x) { return {__bfloat16_as_ushort(__float2bfloat16_rn(x))}; }

/// The two numbers of a word: the lower half comes first in memory.
__device__ inline float low(unsigned pair) { return __uint_as_float(pair << 16); }
__device__ inline float high(unsigned pair) { return __uint_as_float(pair & 0xffff0000u); }

__device__ inline unsigned pack(float first, float second) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(first, second);
  return *reinterpret_cast<const unsigned*>(&pair);
}

/// What another kernel of the step wrote: past the L1 cache, which may hold what was there before.
__device__ inline float load_fresh_one(const bf16* from) {
  return as_float({__ldcg(reinterpret_cast<const unsigned short*>(from))});
}

/// 16 or 8 bytes into shared memory, 16 past the L1 cache too: queued, as part of the group that is committed next.
template <class T>
__device__ inline void copy_async(T& to, const void* from) {
  const auto address = static_cast<unsigned>(__cvta_generic_to_shared(&to));
  if constexpr (sizeof(T) == 16) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(address), "l"(from) : "memory");
  } else {
    static_assert(sizeof(T) == 8);
    asm volatile("cp.async.ca.shared.global [%0], [%1], 8;" ::"r"(address), "l"(from) : "memory");
  }
}
__device__ inline void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
/// Until at most kLater groups of this thread are on their way.
template <int kLater>
__device__ void wait_for_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kLater) : "memory");
}

}  // namespace comba::model_step::cuda
