#pragma once

#include "operators/cuda/launch.h"

/// Softmax cross entropy of rows of logits on a GPU, with its gradient in the place of the logits:
///
///     loss[r] = log sum_v exp(logits[r, v]) - logits[r, target[r]]
///     logits[r, v] <- scale (softmax(logits[r])[v] - [v = target[r]])
///
/// in fp32, whatever the dtype. A row whose target is kIgnoredTarget has loss and gradient 0; one whose target is no
/// column, NaN. Everything is queued on the stream; the same bits each time.
namespace comba::cuda {

inline constexpr std::int64_t kIgnoredTarget = -100;

struct CrossEntropy {
  std::int64_t rows = 0;                  ///< R
  std::int64_t columns = 0;               ///< V
  std::int64_t row_stride = 0;            ///< a multiple of 8, at least V: what lies between is written to
  DType dtype = DType::f32;               ///< of logits: f32, bf16 or f16
  void* logits = nullptr;                 ///< [R, V]  aligned to 16 bytes
  const std::int64_t* targets = nullptr;  ///< [R]
  const float* scale = nullptr;           ///< one number on the device; absent: no gradient, the logits stay
  float* losses = nullptr;                ///< [R]
  CUstream_st* stream = nullptr;
};

void cross_entropy(const CrossEntropy& args);

}  // namespace comba::cuda
