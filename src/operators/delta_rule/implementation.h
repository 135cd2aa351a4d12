#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "operators/delta_rule/problem.h"

namespace comba::delta_rule {

/// One way to compute the operator.
struct Implementation {
  const char* name;  ///< its path with dots, e.g. "cpu.avx2"
  /// Why it cannot run such a call; empty when it can.
  std::string (*refusal)(const Problem&);
  std::int64_t (*forward_workspace)(const Problem&);
  std::int64_t (*backward_workspace)(const Problem&);
  std::int64_t (*decode_workspace)(const Problem&);
  void (*forward)(const Problem&, const DeltaRuleForward&, Workspace);
  void (*backward)(const Problem&, const DeltaRuleBackward&, Workspace);
  void (*decode_step)(const Problem&, const DeltaRuleDecode&, Workspace);
  /// Bytes that its forward can leave for its backward; absent: none.
  std::int64_t (*saved_bytes)(const Problem&) = nullptr;
};

/// The refusal of an implementation for tensors in host memory.
inline std::string only_on_cpu(const Problem& x) {
  return x.execution.device == DeviceType::cpu ? "" : "works on tensors in host memory only";
}

/// The same of one that decodes in the simple case only: row b has state b, in f32, written after all tokens.
inline std::string plain_decode_on_cpu(const Problem& x) {
  if (x.execution.device != DeviceType::cpu || x.verb != Verb::decode_step) return only_on_cpu(x);
  if (x.state.dtype != DType::f32) return "keeps states in f32";
  return x.state_indices.given() || x.num_accepted.given() ? "has no state_indices or num_accepted" : "";
}

/// Best first, the definition last.
const std::vector<Implementation>& implementations();

namespace cpu {
/// Chunks of 64 tokens, vectorised, parallel over sequences and heads: one for each instruction set compiled in.
std::vector<Implementation> chunk_implementations();
/// The definition in double, token by token.
Implementation reference_implementation();
}  // namespace cpu

namespace cuda {
/// Those for NVIDIA GPUs; none in a build without CUDA.
std::vector<Implementation> implementations();
}  // namespace cuda

}  // namespace comba::delta_rule
