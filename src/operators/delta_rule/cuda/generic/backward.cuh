#pragma once

#include "operators/delta_rule/cuda/generic/scan.cuh"

/// What the kernels of backward are told, and what they leave for each other (README.md section 10).
namespace comba::delta_rule::cuda::generic {

/// Shares of one slot in sums over all tokens.
struct ValueHeadSums {
  double dA_log, ddt_bias, db;
};
struct KeyHeadSums {
  double db, dd;
};

template <class Element>
struct BackwardArguments : ScanArguments<Element>, GradientTensors {
  Element* d_states = nullptr;  ///< dS after each chunk, laid out as saved.states
  float* d_writes = nullptr;    ///< gradients of the errors over beta, laid out as saved.errors: dR of the README
  float *dq_rows = nullptr, *dk_rows = nullptr,
        *dp_rows = nullptr;                  ///< [slots, HV, C, K tiles * 64], see gradients.cuh
  ValueHeadSums* value_head_sums = nullptr;  ///< [slots, HV]
  KeyHeadSums* key_head_sums = nullptr;      ///< [slots, H]

  __device__ float* direction_rows(float* rows, std::int64_t slot, int head) const {
    return rows + this->number(slot, head) * kSide * (this->K_tiles * kSide);
  }
};

/// The rows of a chunk in the workspace, as pieces.
inline __device__ Window<float> saved_window(const float* rows, int tiles) {
  return Window<float>(const_cast<float*>(rows), tiles * kSide, kSide, tiles * kSide);
}

/// A gradient of a gate of token i.
inline __device__ void store_gate(const Strided& x, const Chunk& chunk, int i, int head, float value) {
  if (x.data == nullptr) return;
  const std::int64_t at = chunk.batch * x.stride[0] + (chunk.begin + i) * x.stride[1] + head * x.stride[2];
  if (x.dtype == DType::f32) {
    static_cast<float*>(x.data)[at] = value;
  } else if (x.dtype == DType::bf16) {
    static_cast<__nv_bfloat16*>(x.data)[at] = from_float<__nv_bfloat16>(value);
  } else {
    static_cast<__half*>(x.data)[at] = from_float<__half>(value);
  }
}

inline __device__ float sigmoid(float x) { return 1 / (1 + expf(-x)); }

}  // namespace comba::delta_rule::cuda::generic
