#pragma once

#include <cstdint>

/// y = silu(gate) up, element by element; fp32, dense, on the CPU.
namespace comba {

struct SwigluForward {
  std::int64_t count = 0;       ///< elements
  const float* gate = nullptr;  ///< [count]
  const float* up = nullptr;    ///< [count]
  float* y = nullptr;           ///< [count]
};

struct SwigluBackward {
  std::int64_t count = 0;
  const float* dy = nullptr;    ///< [count]
  const float* gate = nullptr;  ///< [count]
  const float* up = nullptr;    ///< [count]
  float* dgate = nullptr;       ///< [count]
  float* dup = nullptr;         ///< [count]
};

void swiglu_forward(const SwigluForward& args);
void swiglu_backward(const SwigluBackward& args);

}  // namespace comba
