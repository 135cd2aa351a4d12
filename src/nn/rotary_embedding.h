#pragma once

#include <ATen/ATen.h>

namespace comba::nn {

/// Rotary positions (arXiv 2104.09864): dims i and i + K/2 turn as a pair by the angle position theta^(-2i/K).
/// x [B, H, T, K] with even K, positions [T] i64 -> [B, H, T, K]
at::Tensor rotary_embedding(const at::Tensor& x, const at::Tensor& positions, double theta);

}  // namespace comba::nn
