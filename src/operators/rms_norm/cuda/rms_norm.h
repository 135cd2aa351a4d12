#pragma once

#include "operators/cuda/launch.h"
#include "operators/rms_norm/rms_norm.h"

/// RMS normalisation of rows on a GPU, with an optional gate, or with the residual stream's addition before it:
///
///     y = weight x r f(gate),                    r = 1 / sqrt(mean(x^2) + eps)
///     x_new = x + branch,  y = weight x_new r,   r = 1 / sqrt(mean(x_new^2) + eps)
///
/// in fp32, whatever the dtypes; x_new is rounded to its own before it is normalised. R rows of D elements each. The
/// gate and the branch exclude each other. Everything is queued on the stream; the same bits each time.
namespace comba::cuda {

struct RmsNormForward {
  std::int64_t rows = 0;       ///< R
  std::int64_t dim = 0;        ///< D
  DType x_dtype = DType::f32;  ///< of x and x_new: f32, bf16 or f16
  DType y_dtype = DType::f32;  ///< of branch, gate and y: that of x, or any beside f32
  DType weight_dtype = DType::f32;
  ConstRows x{};                 ///< [R, D]
  ConstRows branch{};            ///< [R, D]  optional
  ConstRows gate{};              ///< [R, D]  optional
  const void* weight = nullptr;  ///< [D]
  float eps = 0;
  GateFunction function = GateFunction::sigmoid;
  Rows x_new{};                  ///< [R, D]  with branch
  Rows y{};                      ///< [R, D]
  float* inverse_rms = nullptr;  ///< [R]     r, for backward
  CUstream_st* stream = nullptr;
};

/// With n = x r and a = dy f(gate) weight:
///
///     dx = r (a - n mean(a n)) + d_x_new,   dgate = dy weight n f'(gate),   dweight = sum over rows of dy f(gate) n
///
/// and the gradient of the branch is dx, rounded to the branch's dtype.
struct RmsNormBackward {
  std::int64_t rows = 0;
  std::int64_t dim = 0;
  DType x_dtype = DType::f32;          ///< of x, d_x_new and dx
  DType y_dtype = DType::f32;          ///< of dy, gate, dgate and dbranch
  DType weight_dtype = DType::f32;     ///< of weight and dweight
  ConstRows dy{};                      ///< [R, D]
  ConstRows x{};                       ///< [R, D]  x, or x_new with a branch
  ConstRows gate{};                    ///< [R, D]  optional
  ConstRows d_x_new{};                 ///< [R, D]  optional
  const void* weight = nullptr;        ///< [D]
  const float* inverse_rms = nullptr;  ///< [R]
  GateFunction function = GateFunction::sigmoid;
  Rows dx{};                      ///< [R, D]
  Rows dbranch{};                 ///< [R, D]  optional: dx once more, in the dtype of y
  Rows dgate{};                   ///< [R, D]  with gate
  void* dweight = nullptr;        ///< [D]
  float* partial_sums = nullptr;  ///< [rms_norm_num_parts(), D]  scratch
  CUstream_st* stream = nullptr;
};

/// Of sums over rows: each block has one.
std::int64_t rms_norm_num_parts();

void rms_norm_forward(const RmsNormForward& args);
void rms_norm_backward(const RmsNormBackward& args);

}  // namespace comba::cuda
