#pragma once

#include <cuda_runtime_api.h>

#include "operators/delta_rule/cuda/sm90/forward.h"

namespace comba::delta_rule::cuda::sm90 {

/// A gradient whose rows are vectors, [B, T, heads, dim]; absent: no data. Strides in elements.
struct RowGradient {
  void* data = nullptr;
  std::int64_t stride[3] = {};
};

/// A gradient [B, T, HV] of any floating dtype; absent: no data.
struct GateGradient {
  void* data = nullptr;
  DType dtype = DType::f32;
  std::int64_t stride[3] = {};
};

/// A gradient of each head; absent: no data.
struct PerHeadGradient {
  float* data = nullptr;
  std::int64_t stride = 0;
};

/// What a chunk adds to the gradients of a value head's parameters.
struct ValueHeadPart {
  float A_log, dt_bias;
};

/// The same of a key head: of b as factor of the feedback, and of the strength of the query's correction.
struct KeyHeadPart {
  float b, strength;
};

/// One call of the backward pass (README.md section 9). Between its kernels pass, of every chunk of every value head,
/// in 16 bits:
struct BackwardArguments {
  Arguments forward;                     ///< inputs, and what the forward pass leaves for this one; no final_state
  CUtensorMap d_o_slice, d_o;            ///< boxes of 64 tokens and a slice's columns; of 64 columns
  CUtensorMap d_error_slice, d_error;    ///< of dE [slots * HV, 64, V_rows], the same boxes
  std::uint16_t* d_states = nullptr;     ///< dS+^T [slots, HV], laid out as the states
  ValueHeadPart* value_parts = nullptr;  ///< [slots, HV]
  KeyHeadPart* key_parts = nullptr;      ///< [slots, H]
  unsigned* progress = nullptr;          ///< of reverse, [N, HV, narrow slices], if gradients follows it (ready.cuh)
  States d_final_state, d_initial_state;
  RowGradient dq, dk, dv, v;  ///< v: the input, for tokens whose beta is 0
  GateGradient d_step, d_decay;
  PerHeadGradient db, dd, dA_log, ddt_bias;
};

/// How reverse cuts the values.
enum class BackwardSlices { narrow, wide };  ///< 32 columns a block; 64, or 128 for K <= 128

/// Columns of a slice.
constexpr int columns_of(BackwardSlices slices) { return slices == BackwardSlices::narrow ? 32 : 64; }

/// Those of reverse where gradients follows it: narrow slices leave it multiprocessors.
constexpr int kFollowedColumns = columns_of(BackwardSlices::narrow);

/// Queues all kernels of the backward pass; K is at most `padded_K`, one of 64, 128, 256. If not `saved`, the forward
/// kernels that leave what they need have just been queued.
void launch_backward_bf16(const BackwardArguments& x, int padded_K, BackwardSlices slices, bool saved,
                          cudaStream_t stream);
void launch_backward_f16(const BackwardArguments& x, int padded_K, BackwardSlices slices, bool saved,
                         cudaStream_t stream);

}  // namespace comba::delta_rule::cuda::sm90
