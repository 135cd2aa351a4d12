#pragma once

#include <cstdint>
#include <string>

#include "comba/delta_rule.h"

/// A checked call: every dimension resolved, every view known to fit. Implementations start from here.
namespace comba::delta_rule {

enum class Verb : std::uint8_t { forward, backward, decode_step };

struct Problem {
  Verb verb = Verb::forward;
  Execution execution;
  DeltaRuleOptions options;
  DeltaRuleInputs in;
  ConstView o;                                  ///< absent in backward
  ConstView state;                              ///< final_state of forward, if given; state of decode_step
  ConstView state_indices;                      ///< of decode_step, if given
  ConstView num_accepted;                       ///< of decode_step, if given
  float scale = 1;                              ///< the query's factor, resolved
  std::int64_t B = 0;                           ///< batch
  std::int64_t T = 0;                           ///< tokens of a batch row
  std::int64_t H = 0;                           ///< key heads
  std::int64_t HV = 0;                          ///< value heads
  std::int64_t K = 0;                           ///< key dim
  std::int64_t V = 0;                           ///< value dim
  std::int64_t N = 0;                           ///< sequences
  std::int64_t P_heads = 0;                     ///< heads of p: H, HV, or 0 when p is absent
  const DeltaRuleBackward* backward = nullptr;  ///< the call, of backward
  std::int64_t saved_bytes = 0;                 ///< that forward leaves or backward is given

  std::int64_t group() const { return HV / H; }  ///< value heads that share a key head

  struct Sequence {
    std::int64_t batch;  ///< row of the batch it lies in
    std::int64_t begin;  ///< first token
    std::int64_t end;    ///< one past the last token
  };

  // For tensors in host memory.
  Sequence sequence(std::int64_t n) const;
  std::int64_t border(std::int64_t n) const;  ///< of packed sequences
};

/// Checks every rule of the arguments and resolves the dimensions. `where` opens the message of the Error it throws.
/// On a GPU the borders in cu_seqlens are looked at when the call runs (cuda/borders.h).
Problem check(const std::string& where, const DeltaRuleOptions& options, const DeltaRuleInputs& inputs,
              const Execution& execution = {});

Problem check(const DeltaRuleForward& args);
Problem check(const DeltaRuleBackward& args);
Problem check(const DeltaRuleDecode& args);

}  // namespace comba::delta_rule
