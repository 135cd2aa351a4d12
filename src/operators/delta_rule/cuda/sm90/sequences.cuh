#pragma once

#include "operators/delta_rule/cuda/sm90/arguments.h"

/// Which tokens a sequence, a slot, a chunk has; all on the device, so that cu_seqlens needs no copy to the host.
namespace comba::delta_rule::cuda::sm90 {

struct Sequence {
  int batch;       ///< row of the tensors
  int begin, end;  ///< tokens, within the row
  int slot;        ///< of its first chunk

  __device__ int chunks() const { return (end - begin + kChunk - 1) / kChunk; }
};

__device__ inline int border(const Sequences& x, int n) {
  const std::int64_t token =
      x.are_i64 ? static_cast<const std::int64_t*>(x.cu_seqlens)[n] : static_cast<const std::int32_t*>(x.cu_seqlens)[n];
  return static_cast<int>(min(max(token, std::int64_t{0}), x.T));  // whatever it says, no other token is touched
}

/// Packed sequences: one of L tokens that begins at token b has at most (b + L) / 64 - b / 64 + 1 chunks, so the slots
/// from b / 64 + n on are its own.
__device__ inline int first_slot(const Sequences& x, int n) { return border(x, n) / kChunk + n; }

__device__ inline Sequence sequence(const Sequences& x, int n) {
  if (x.cu_seqlens) return {0, border(x, n), border(x, n + 1), first_slot(x, n)};
  const int T = static_cast<int>(x.T);
  return {n, 0, T, n * ((T + kChunk - 1) / kChunk)};
}

/// The slot that is number `i` when sequences of one length are gone through side by side against their direction: all
/// last chunks first.
__device__ inline int slot_from_ends(const Sequences& x, int i) {
  const int place = x.slots - 1 - i;
  return place % x.N * (x.slots / x.N) + place / x.N;
}

struct Chunk {
  int batch;
  int begin;  ///< first token
  int count;  ///< of tokens; none: nobody uses the slot
};

__device__ inline int sequence_of_slot(const Sequences& x, int slot) {
  if (!x.cu_seqlens) return slot / ((static_cast<int>(x.T) + kChunk - 1) / kChunk);
  int n = 0;
  for (int above = x.N; above - n > 1;) {
    const int middle = (n + above) / 2;
    (first_slot(x, middle) <= slot ? n : above) = middle;
  }
  return n;
}

__device__ inline Chunk chunk_of_slot(const Sequences& x, int slot) {
  const Sequence s = sequence(x, sequence_of_slot(x, slot));
  const int begin = s.begin + (slot - s.slot) * kChunk;
  return {s.batch, begin, max(0, min(kChunk, s.end - begin))};
}

}  // namespace comba::delta_rule::cuda::sm90
