#pragma once

#include <cuda.h>

#include <string>

#include "comba/view.h"

namespace comba::delta_rule::cuda::sm90 {

/// Why bulk tensor copies cannot read the tensor [B, T, heads, dim]; empty when they can.
std::string tensor_map_refusal(const char* name, const ConstView& view);

/// Reads boxes of 64 tokens and `columns` columns (16, 32 or 64) of a head, each row swizzled by its width; zeros
/// beyond the tensor. Dims: dim, heads, T, B. An empty tensor has a map that nobody may read.
CUtensorMap tensor_map(const ConstView& view, int columns);

/// The same of states [N, HV, K, V] in f32 or bf16, where copies go both ways: why they cannot, and the map of boxes of
/// `rows` rows (at most 256) of 64 or 128 bytes, swizzled by that.
std::string state_map_refusal(const ConstView& view);
CUtensorMap state_map(const ConstView& view, int rows, int columns);

}  // namespace comba::delta_rule::cuda::sm90
