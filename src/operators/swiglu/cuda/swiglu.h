#pragma once

#include "operators/cuda/launch.h"

/// y = silu(gate) up on a GPU, in fp32 whatever the dtype. Gate and up may be columns of one tensor, and their
/// gradients too. Everything is queued on the stream.
namespace comba::cuda {

struct SwigluForward {
  std::int64_t rows = 0;     ///< R
  std::int64_t dim = 0;      ///< F
  DType dtype = DType::f32;  ///< of all tensors: f32, bf16 or f16
  ConstRows gate, up;        ///< [R, F]
  Rows y;                    ///< [R, F]
  CUstream_st* stream = nullptr;
};

struct SwigluBackward {
  std::int64_t rows = 0;
  std::int64_t dim = 0;
  DType dtype = DType::f32;
  ConstRows dy, gate, up;  ///< [R, F]
  Rows dgate, dup;         ///< [R, F]
  CUstream_st* stream = nullptr;
};

void swiglu_forward(const SwigluForward& args);
void swiglu_backward(const SwigluBackward& args);

}  // namespace comba::cuda
