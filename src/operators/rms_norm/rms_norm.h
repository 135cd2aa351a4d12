#pragma once

#include <cstdint>

/// RMS normalisation of rows, with an optional gate; fp32, on the CPU.
///
///     y = weight x r f(gate),   r = 1 / sqrt(mean(x^2) + eps),   f = sigmoid or silu, or 1 without a gate
///
/// R rows of D elements, dense. Deterministic, whatever the number of threads.
namespace comba {

enum class GateFunction : std::uint8_t { sigmoid, silu };

struct RmsNormForward {
  std::int64_t rows = 0;          ///< R
  std::int64_t dim = 0;           ///< D
  const float* x = nullptr;       ///< [R, D]
  const float* gate = nullptr;    ///< [R, D]  optional
  const float* weight = nullptr;  ///< [D]
  float eps = 0;
  GateFunction function = GateFunction::sigmoid;
  float* y = nullptr;            ///< [R, D]
  float* inverse_rms = nullptr;  ///< [R]     r, for backward
};

struct RmsNormBackward {
  std::int64_t rows = 0;
  std::int64_t dim = 0;
  const float* dy = nullptr;           ///< [R, D]
  const float* x = nullptr;            ///< [R, D]
  const float* gate = nullptr;         ///< [R, D]  optional
  const float* weight = nullptr;       ///< [D]
  const float* inverse_rms = nullptr;  ///< [R]
  GateFunction function = GateFunction::sigmoid;
  float* dx = nullptr;            ///< [R, D]
  float* dgate = nullptr;         ///< [R, D]  with gate
  float* dweight = nullptr;       ///< [D]
  float* partial_sums = nullptr;  ///< [rms_norm_num_slabs(R), D]  scratch
};

/// Rows are summed in slabs of a fixed height, then slab by slab.
std::int64_t rms_norm_num_slabs(std::int64_t rows);

void rms_norm_forward(const RmsNormForward& args);
void rms_norm_backward(const RmsNormBackward& args);

}  // namespace comba
