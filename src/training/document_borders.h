#pragma once

#include <ATen/ATen.h>

#include <cstdint>

namespace comba::training {

/// Where the sequences of B windows begin and the last one ends, once the windows are laid one behind the other: at
/// each window's first token, and at each `bos`, with which every document opens. input_ids [B, T] i64 -> cu_seqlens [N
/// + 1] i64, from 0 to B T
at::Tensor document_borders(const at::Tensor& input_ids, std::int64_t bos);

}  // namespace comba::training
