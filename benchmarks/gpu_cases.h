#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "comba/delta_rule.h"

/// The calls that are timed on a GPU: those of benchmarks/gpu/cases.py, under the same names, and backward.
namespace comba::benchmarks {

enum class Operation { forward, backward, decode_step };

/// q, k, v and gates in bf16; the L2 norm of q and k and the gates are part of the call.
struct GpuCase {
  Operation operation;
  Rule rule;
  std::int64_t B, T, H, HV, K, V;
  std::vector<std::int64_t> lengths{};  ///< of packed sequences, whose sum is T; none: not packed
  DType state = DType::f32;             ///< of decode_step

  std::string operator_name() const;
  std::string rule_name() const;
  std::string name() const;  ///< unique: "forward comba 1x2048 16/16 128"
  /// That have to be moved: q, k, v and o, or the states read and written; backward: the inputs, do and the gradients.
  double bytes() const;
  /// Of different addresses that a call touches.
  double footprint() const;
  /// Of the chunk form; none for decode_step.
  double flop() const;
};

/// Those whose names match the regular expression. Throws Error (invalid_argument) when none does.
std::vector<GpuCase> gpu_cases_matching(const std::string& filter);

}  // namespace comba::benchmarks
