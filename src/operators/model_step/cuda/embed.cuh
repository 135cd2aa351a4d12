#pragma once

#include "operators/model_step/cuda/bf16.cuh"
#include "operators/model_step/cuda/dependent_launch.cuh"
#include "operators/model_step/model_step.h"

namespace comba::model_step::cuda {

struct EmbedArguments {
  const bf16* embedding;  ///< [vocab, D]
  bf16* residual;         ///< [R, stride]
  int D, stride;
  const std::int32_t* slots;
  const std::int32_t* tokens;  ///< [S]
  int num_slots;
  std::int32_t* counter;
};

/// The rows' tokens as the start of the residual stream. One block a row; the first kernel of a step.
__global__ void embed(const EmbedArguments x) {
  let_next_begin();
  const int row = static_cast<int>(blockIdx.x);
  if (row == 0 && threadIdx.x == 0) ++*x.counter;
  const std::int32_t slot = x.slots[row];
  if (slot < 0 || slot >= x.num_slots) return;
  const bf16* const from = x.embedding + static_cast<std::int64_t>(x.tokens[slot]) * x.D;
  for (int i = static_cast<int>(threadIdx.x); i < x.D; i += static_cast<int>(blockDim.x))
    x.residual[place_in_rows(row, i, x.stride)] = from[i];
}

}  // namespace comba::model_step::cuda
