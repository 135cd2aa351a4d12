#pragma once

#include <ATen/ATen.h>

#include <algorithm>
#include <bit>

namespace comba::nn {

/// Tokens are worked on in chunks of this many; fewer tokens, in one chunk of the next power of two.
inline constexpr int64_t kChunkLength = 64;

/// C for T tokens.
inline int64_t chunk_length(int64_t num_tokens) {
  return std::min(kChunkLength, static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(num_tokens))));
}

/// [B, T, H, X] -> [B, H, NC, C, X] in `dtype`, with zeros after the last token.
inline at::Tensor in_chunks(const at::Tensor& x, at::ScalarType dtype) {
  const int64_t length = chunk_length(x.size(1));
  const int64_t num_chunks = (x.size(1) + length - 1) / length;
  const at::Tensor padded = at::constant_pad_nd(x.to(dtype), {0, 0, 0, 0, 0, num_chunks * length - x.size(1)});
  return padded.unflatten(1, {num_chunks, length}).permute({0, 3, 1, 2, 4});
}

/// The way back.  [B, H, NC, C, X] -> [B, T, H, X]
inline at::Tensor from_chunks(const at::Tensor& x, int64_t num_tokens) {
  return x.flatten(2, 3).narrow(2, 0, num_tokens).transpose(1, 2);
}

/// fp32 for 16-bit tensors, and otherwise their own dtype: what states and sums over many tokens are kept in.
inline at::ScalarType wide_dtype(const at::Tensor& x) { return at::promote_types(x.scalar_type(), at::kFloat); }

/// Decays below e^-128 a token are 0 in fp32 anyway, and -infinity would give differences that are not numbers.
inline constexpr double kSmallestLogDecay = -128;

}  // namespace comba::nn
